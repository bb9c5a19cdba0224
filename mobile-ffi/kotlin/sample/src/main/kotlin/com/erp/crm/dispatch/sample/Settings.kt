package com.erp.crm.dispatch.sample

import com.erp.crm.dispatch.ClientOptions
import com.erp.crm.dispatch.Encryption
import com.erp.crm.dispatch.HostException
import com.erp.crm.dispatch.LogLevel
import com.erp.crm.dispatch.SecureStorage
import com.erp.crm.dispatch.TokenProvider
import java.io.IOException
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.nio.file.attribute.PosixFilePermissions

const val USAGE = """A technician at a console, on the same library as the phone's.

Usage: run --technician ID [--server URL] [--tenant ID] [--folder DIRECTORY] [--unencrypted]

  --technician ID     who you are, TECH-10 for example
  --server URL        the server; http://127.0.0.1:9405 unless said otherwise
  --tenant ID         tenant-001 unless said otherwise
  --folder DIRECTORY  where visits are kept; ~/.crm-dispatch-sample unless said otherwise
  --unencrypted       keep the visits as they are, instead of encrypted
  --help              this

Your token comes from the environment, because arguments are seen by everybody on the machine:
  export CRM_DISPATCH_TOKEN=…    as `crm-dispatch demo` prints it, or `crm-dispatch token --role technician --technician ID`

It reads commands from standard input, one a line, so a script can be piped into it; the exit code is 1 when one failed."""

class WrongUsage(message: String) : Exception(message)

/** What the command line asks for. */
class Settings private constructor(
    val server: String,
    val tenant: String,
    val technician: String,
    val folder: Path,
    private val token: String,
    private val encryption: Encryption,
) {
    fun options() = ClientOptions(
        path = folder.resolve("$tenant.db").toString(),
        serverUrl = server,
        app = "console technician 0.1",
        encryption = encryption,
        networkAtStart = true,
        logLevel = LogLevel.WARN,
    )

    /** An app asks its identity provider; here a person has put a token into the environment, and there is no other. */
    fun tokens() = object : TokenProvider {
        override suspend fun fetchToken(rejected: Boolean): String =
            if (rejected) throw HostException.SignInNeeded("the server does not take CRM_DISPATCH_TOKEN") else token
    }

    companion object {
        /** `null` when only help is asked for. */
        fun from(arguments: List<String>, environment: Map<String, String>): Settings? {
            val named = mutableMapOf<String, String>()
            var unencrypted = false
            val left = arguments.iterator()
            while (left.hasNext()) {
                when (val name = left.next()) {
                    "--help", "-h" -> return null
                    "--unencrypted" -> unencrypted = true
                    "--technician", "--server", "--tenant", "--folder" -> {
                        if (!left.hasNext()) throw WrongUsage("$name needs a value.")
                        named[name] = left.next()
                    }
                    else -> throw WrongUsage("$name is not known.")
                }
            }
            return Settings(
                server = named["--server"] ?: "http://127.0.0.1:9405",
                tenant = named["--tenant"] ?: "tenant-001",
                technician = named["--technician"] ?: throw WrongUsage("Who are you? Say --technician ID."),
                folder = named["--folder"]?.let(Path::of) ?: Path.of(System.getProperty("user.home"), ".crm-dispatch-sample"),
                token = environment["CRM_DISPATCH_TOKEN"]?.takeIf(String::isNotBlank)
                    ?: throw WrongUsage("There is no token: set CRM_DISPATCH_TOKEN."),
                encryption = if (unencrypted) Encryption.OFF else Encryption.SECURE_STORAGE,
            )
        }
    }
}

/**
 * A safe for a demo: files that only their owner may read. A console has nothing better; a phone has its Keystore or Keychain.
 */
class FileSafe(private val folder: Path) : SecureStorage {
    private val onlyOwner = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"))

    init {
        Files.createDirectories(folder)
    }

    private fun place(name: String): Path = folder.resolve("$name.key")

    override fun get(name: String): ByteArray? = try {
        Files.readAllBytes(place(name))
    } catch (_: NoSuchFileException) {
        null
    } catch (failed: IOException) {
        throw HostException.Failed("${failed.message}")
    }

    override fun put(name: String, value: ByteArray) {
        try {
            // Beside it first, then in its place: a key that is half written is none.
            val part = Files.createTempFile(folder, "key", ".part", onlyOwner)
            Files.write(part, value)
            Files.move(part, place(name), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING)
        } catch (failed: IOException) {
            throw HostException.Failed("${failed.message}")
        }
    }

    override fun remove(name: String) {
        try {
            Files.deleteIfExists(place(name))
        } catch (failed: IOException) {
            throw HostException.Failed("${failed.message}")
        }
    }
}
