package com.erp.crm.dispatch

import java.io.FileOutputStream
import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds

/** What a story on a hard disk prints when it was told to its end, and how many facts it has taken. */
const val TOLD = "told, facts taken: "

/** Actions after which the disk must have been full. */
private const val ACTIONS_MAX = 10_000u

/**
 * A story of [HardDiskTest], in a process of its own that `scripts/as-app` gives a small file system (`APP_DISK`), and from which it
 * takes root's right to pass over permissions: STORY URL TECHNICIAN TOKEN DISPATCH.
 */
fun main(arguments: Array<String>) {
    val (told, url, technician, token, dispatch) = arguments
    val phone = HardDisk(Path.of(System.getenv("APP_DISK")), url, technician, token, dispatch)
    story { println(TOLD + if (told == "full") phone.isFull() else phone.isReadOnly()) }
}

private class HardDisk(private val disk: Path, private val url: String, private val technician: String, private val token: String, private val dispatch: String) {
    private val safe = Safe()

    private suspend fun open(): DispatchPhone {
        val options = ClientOptions("${disk.resolve("phone.db")}", url, "kotlin-story 1.0", Encryption.SECURE_STORAGE, true, LogLevel.ERROR)
        return DispatchPhone.open(options, Tokens(token), safe)
    }

    private suspend fun primed(): DispatchPhone {
        val phone = open()
        phone.signIn(TENANT, technician)
        phone.start()
        phone.caughtUp()
        phone.goesOffline()
        return phone
    }

    /** Takes what is left of the disk. */
    private fun videos(): Path {
        val file = disk.resolve("videos")
        FileOutputStream(file.toFile()).use { out ->
            for (length in listOf(4096, 1)) {
                try {
                    while (true) out.write(ByteArray(length))
                } catch (_: IOException) {
                    // No space for so much.
                }
            }
        }
        return file
    }

    suspend fun isFull(): UInt {
        val first = videos()
        assertFailsWith<PhoneException.DiskFull> { open() }
        assertFailsWith<PhoneException.DiskFull> { open() }
        Files.delete(first)

        val phone = primed()
        assertEquals(null, phone.openNotice().setAsidePath, "what the first tries left was no file to be kept")
        phone.startsWork(dispatch)
        val videos = videos()
        var taken = 4u
        assertFailsWith<PhoneException.DiskFull> {
            while (taken < ACTIONS_MAX) taken = phone.act(dispatch, Action.LogTime("labour", taken), null).unsent
        }
        assertEquals(VisitStage.IN_PROGRESS, phone.visit(dispatch).summary.stage, "reading goes on")
        assertEquals(taken, phone.syncStatus().unsent, "what was refused leaves no trace")
        // The office may hear of it meanwhile; that it has cannot be written down.
        phone.networkChanged(true)
        try {
            phone.syncNow(500.milliseconds)
        } catch (_: PhoneException.DiskFull) {
            // It may say so.
        }
        phone.goesOffline()
        // The app is put away and comes back while the disk still is full.
        for (call in listOf<suspend () -> Unit>({ phone.suspend() }, { phone.resume() })) {
            try {
                call()
            } catch (_: PhoneException.DiskFull) {
                // And this too.
            }
        }
        Files.delete(videos)
        phone.resume()
        phone.act(dispatch, Action.LogTime("labour", taken), null)
        assertEquals(taken - 3u, phone.visit(dispatch).timeWorked.size.toUInt())
        phone.networkChanged(true)
        phone.caughtUp()
        phone.close()
        return taken + 1u
    }

    private fun may(rights: String) {
        Files.setPosixFilePermissions(disk, PosixFilePermissions.fromString(rights))
    }

    suspend fun isReadOnly(): UInt {
        may("r-x------")
        val refused = assertFailsWith<PhoneException.StoreFailed> { open() }
        assertTrue("denied" in refused.reason, refused.reason)
        may("rwx------")
        primed().use { it.startsWork(dispatch) }
        val lock = disk.resolve("phone.db.lock")
        val files = Files.list(disk).use { it.toList() }
        for (file in files) Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("r--------"))
        may("r-x------")
        assertTrue(Files.exists(lock))
        assertTrue("denied" in assertFailsWith<PhoneException.StoreFailed> { open() }.reason)
        may("rwx------")
        for (file in files) Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw-------"))
        open().use { phone ->
            assertEquals(4u, phone.syncStatus().unsent, "it keeps what it has")
            phone.start()
            phone.caughtUp()
        }
        return 4u
    }
}
