package com.erp.crm.dispatch

import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.CopyOnWriteArrayList
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.ReceiveChannel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

/** A token provider that hands these out, one a call, the last one for ever, and remembers how it was asked. */
class Tokens(private vararg val tokens: String) : TokenProvider {
    /** `rejected` of each call, in order. */
    val asked = CopyOnWriteArrayList<Boolean>()

    override suspend fun fetchToken(rejected: Boolean): String {
        asked += rejected
        return tokens[minOf(asked.size, tokens.size) - 1]
    }
}

/** What a phone's secure storage keeps, in memory: it outlives the client, as a Keystore does. */
open class Safe : SecureStorage {
    val kept = ConcurrentHashMap<String, ByteArray>()

    override fun get(name: String): ByteArray? = kept[name]

    override fun put(name: String, value: ByteArray) {
        kept[name] = value
    }

    override fun remove(name: String) {
        kept.remove(name)
    }
}

/** A phone in a story: where its file lies and what its app gives to the library. */
class Handset(
    private val server: RealServer,
    private val tokens: TokenProvider,
    private val encryption: Encryption = Encryption.SECURE_STORAGE,
) : AutoCloseable {
    private val folder: Path = Files.createTempDirectory("dispatch-phone-")
    private val opened = mutableListOf<DispatchPhone>()
    val file: Path = folder.resolve("phone.db")
    val safe = Safe()
    val lines = CopyOnWriteArrayList<String>()

    fun options(path: Path = file, online: Boolean = true, url: String = server.url) = ClientOptions(
        path = path.toString(),
        serverUrl = url,
        app = "kotlin-story 1.0",
        encryption = encryption,
        networkAtStart = online,
        logLevel = LogLevel.DEBUG,
    )

    suspend fun open(
        options: ClientOptions = options(),
        tokens: TokenProvider = this.tokens,
        storage: SecureStorage = safe,
        logs: LogSink? = Lines(lines),
    ): DispatchPhone = DispatchPhone.open(options, tokens, storage, logs).also { opened += it }

    /** A phone that its technician has signed in on and that has fetched everything. */
    suspend fun primed(technician: String): DispatchPhone {
        val phone = open()
        phone.signIn(TENANT, technician)
        phone.start()
        phone.caughtUp()
        return phone
    }

    override fun close() {
        opened.forEach { it.close() }
        folder.toFile().deleteRecursively()
    }
}

private class Lines(private val kept: MutableList<String>) : LogSink {
    override fun log(level: LogLevel, message: String) {
        kept += "$level $message"
    }
}

/** A story, told within [PATIENCE_MS]. */
fun story(tell: suspend () -> Unit) = runBlocking { withTimeout(2 * PATIENCE_MS) { tell() } }

/** Waits for a state; says which one never came. */
suspend fun <T> Flow<T>.until(what: String, holds: (T) -> Boolean): T {
    var last: Any? = "nothing"
    return try {
        withTimeout(PATIENCE_MS) {
            first {
                last = it
                holds(it)
            }
        }
    } catch (timeout: kotlinx.coroutines.TimeoutCancellationException) {
        throw AssertionError("never $what; last: $last", timeout)
    }
}

/** Waits until everything is exchanged. */
suspend fun DispatchPhone.caughtUp(): SyncStatus =
    syncStatusFlow().until("caught up") { it.caughtUp && it.unsent == 0u && it.visitsToFetch == 0u }

suspend fun DispatchPhone.untilHolding(dispatch: String) =
    visitsFlow().until("holding $dispatch") { visits -> visits.any { it.dispatchId == dispatch } }

suspend fun DispatchPhone.untilConnection(wanted: ConnectionState) =
    syncStatusFlow().until("$wanted") { it.connection == wanted }

/** Tells a story with an ear at what the technician is told meanwhile. */
suspend fun DispatchPhone.hearing(tell: suspend (ReceiveChannel<Notice>) -> Unit) = coroutineScope {
    val heard = Channel<Notice>(Channel.UNLIMITED)
    // Unconfined, so that it listens before the story goes on.
    val listening = launch(Dispatchers.Unconfined) { noticesFlow().collect { heard.send(it) } }
    tell(heard)
    listening.cancelAndJoin()
}

/** The first that [holds]. */
suspend fun <T> ReceiveChannel<T>.until(what: String, holds: (T) -> Boolean): T {
    val passed = mutableListOf<T>()
    return try {
        withTimeout(PATIENCE_MS) {
            while (!holds(receive().also(passed::add))) Unit
            passed.last()
        }
    } catch (timeout: kotlinx.coroutines.TimeoutCancellationException) {
        throw AssertionError("never $what; heard: $passed", timeout)
    }
}

suspend fun DispatchPhone.goesOffline() {
    networkChanged(false)
    untilConnection(ConnectionState.NO_NETWORK)
}

/** Accepts, travels, arrives, works. */
suspend fun DispatchPhone.startsWork(dispatch: String) {
    act(dispatch, Action.Accept(eta = null), null)
    act(dispatch, Action.StartTravel(eta = null), null)
    act(dispatch, Action.Arrive, PositionFix(48.2137, 16.3835, 8.0))
    act(dispatch, Action.StartWork, null)
}
