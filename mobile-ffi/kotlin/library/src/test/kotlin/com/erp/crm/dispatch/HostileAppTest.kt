package com.erp.crm.dispatch

import java.nio.file.Files
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch

/** An app that does everything wrong: an error each, no crash, no lost fact. */
class HostileAppTest {
    private val server = RealServer.shared()

    private fun withPhone(tell: suspend (technician: String, handset: Handset) -> Unit) {
        val technician = server.addTechnician()
        Handset(server, Tokens(server.technicianToken(technician))).use { story { tell(technician, it) } }
    }

    @Test
    fun `a token provider that throws is a problem to read, not a crash`() {
        val technician = server.addTechnician()
        val good = server.technicianToken(technician)
        val calls = AtomicInteger()
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String {
                if (calls.incrementAndGet() == 1) throw IllegalStateException("the account manager is not ready")
                return good
            }
        }
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.open()
                phone.signIn(TENANT, technician)
                val seen = Channel<SyncStatus>(Channel.UNLIMITED)
                coroutineScope {
                    val watching = launch { phone.syncStatusFlow().collect { seen.send(it) } }
                    phone.start()
                    phone.caughtUp()
                    watching.cancelAndJoin()
                }
                assertTrue(calls.get() >= 2, "it was asked again")
                assertTrue(handset.lines.isNotEmpty())
            }
        }
    }

    @Test
    fun `a token provider that never returns does not hold up a job in the background`() {
        val technician = server.addTechnician()
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String = awaitCancellation()
        }
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.open()
                phone.signIn(TENANT, technician)
                assertFalse(phone.syncNow(200.milliseconds).caughtUp)
                assertEquals(emptyList(), phone.visits(VisitFilter()))
            }
        }
    }

    @Test
    fun `a log sink that throws loses its lines and nothing else`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val sink = object : LogSink {
            override fun log(level: LogLevel, message: String): Unit = throw IllegalStateException("no space in the log")
        }
        val phone = handset.open(logs = sink)
        phone.signIn(TENANT, technician)
        phone.start()
        phone.untilHolding(dispatch)
        phone.act(dispatch, Action.Accept(eta = null), null)
        phone.caughtUp()
        assertEquals("CONFIRMED", server.status(dispatch))
    }

    @Test
    fun `a log sink that never returns loses its lines and nothing else`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val (stuck, entered) = CountDownLatch(1) to CountDownLatch(1)
        val sink = object : LogSink {
            override fun log(level: LogLevel, message: String) {
                entered.countDown()
                stuck.await()
            }
        }
        val phone = handset.open(handset.options(url = "http://127.0.0.1:9"), logs = sink)
        phone.signIn(TENANT, technician)
        // Nobody listens there, and the first line says so.
        phone.start()
        assertTrue(entered.await(PATIENCE_MS, TimeUnit.MILLISECONDS))
        assertFalse(phone.syncNow(200.milliseconds).caughtUp)
        phone.shutdown()
        val again = handset.open()
        again.start()
        again.untilHolding(dispatch)
        stuck.countDown()
    }

    @Test
    fun `secure storage that never answers is an error, and the file is as it was`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        handset.primed(technician).use { phone ->
            phone.goesOffline()
            phone.act(dispatch, Action.Accept(eta = null), null)
        }
        val before = Files.readAllBytes(handset.file)
        val stuck = CountDownLatch(1)
        val silent = object : Safe() {
            override fun get(name: String): ByteArray? {
                stuck.await()
                return null
            }
        }
        val failed = assertFailsWith<PhoneException.KeyUnavailable> { handset.open(storage = silent) }
        assertTrue("does not answer" in failed.reason, failed.reason)
        stuck.countDown()
        assertContentEquals(before, Files.readAllBytes(handset.file))
        assertEquals(1u, handset.open().syncStatus().unsent)
    }

    @Test
    fun `an observer that throws hears of the next change`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        val heard = Channel<Int>(Channel.UNLIMITED)
        val subscription = phone.observeVisits(
            VisitFilter(),
            object : VisitListObserver {
                override fun onVisits(visits: List<VisitSummary>) {
                    heard.trySend(visits.size)
                    throw IllegalStateException("the screen is gone")
                }
            },
        )
        assertEquals(0, heard.receive())
        server.assign(technician, hour = 1)
        while (heard.receive() != 1) Unit
        server.assign(technician, hour = 4)
        while (heard.receive() != 2) Unit
        assertTrue(subscription.isActive())
        subscription.cancel()
        subscription.close()
    }

    @Test
    fun `an observer that never returns costs its thread, and others hear as before`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        val stuck = CountDownLatch(1)
        val entered = CountDownLatch(1)
        val subscription = phone.observeVisits(
            VisitFilter(),
            object : VisitListObserver {
                override fun onVisits(visits: List<VisitSummary>) {
                    entered.countDown()
                    stuck.await()
                }
            },
        )
        assertTrue(entered.await(PATIENCE_MS, TimeUnit.MILLISECONDS))
        val dispatch = server.assign(technician)
        phone.untilHolding(dispatch)
        phone.act(dispatch, Action.Accept(eta = null), null)
        phone.caughtUp()
        stuck.countDown()
        subscription.close()
    }

    @Test
    fun `a TODO in the app is an error as any other`() {
        val technician = server.addTechnician()
        val good = server.technicianToken(technician)
        val calls = AtomicInteger()
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String = if (calls.incrementAndGet() == 1) TODO() else good
        }
        val unwritten = object : SecureStorage {
            override fun get(name: String): ByteArray? = TODO()
            override fun put(name: String, value: ByteArray): Unit = TODO()
            override fun remove(name: String): Unit = TODO()
        }
        val sink = object : LogSink {
            override fun log(level: LogLevel, message: String): Unit = TODO()
        }
        Handset(server, tokens).use { handset ->
            story {
                val failed = assertFailsWith<PhoneException.KeyUnavailable> { handset.open(storage = unwritten) }
                assertTrue(failed.reason.contains("NotImplementedError"), failed.reason)
                val phone = handset.open(logs = sink)
                phone.signIn(TENANT, technician)
                phone.start()
                phone.caughtUp()
                assertTrue(calls.get() >= 2, "it was asked again")
                val heard = Channel<Int>(Channel.UNLIMITED)
                val observer = object : VisitListObserver {
                    override fun onVisits(visits: List<VisitSummary>) {
                        heard.trySend(visits.size)
                        TODO()
                    }
                }
                phone.observeVisits(VisitFilter(), observer).use {
                    assertEquals(0, heard.receive())
                    server.assign(technician)
                    while (heard.receive() != 1) Unit
                }
            }
        }
    }

    @Test
    fun `a flow that is no longer collected ends its subscription`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        // More than there may be at once: each was given back.
        repeat(100) { phone.visitsFlow().first() }
        coroutineScope {
            val collecting = launch(Dispatchers.Default) { phone.syncStatusFlow().collect() }
            collecting.cancelAndJoin()
        }
        assertEquals(emptyList(), phone.visitsFlow().first())
    }

    @Test
    fun `too many observers is an error with a reason`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        val nobody = object : SyncStatusObserver {
            override fun onSyncStatus(status: SyncStatus) = Unit
        }
        val kept = mutableListOf<Subscription>()
        val refused = assertFailsWith<PhoneException.InvalidArgument> { repeat(1000) { kept += phone.observeSyncStatus(nobody) } }
        assertTrue(refused.reason.contains("observers"), refused.reason)
        kept.forEach { it.close() }
        // The places are free once the library's tasks have ended, which is a moment later.
        server.until("a place for another one") { runCatching { phone.observeSyncStatus(nobody).close() }.isSuccess }
    }

    @Test
    fun `after closing, flows complete and every call says that it is closed`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        coroutineScope {
            val collected = async(Dispatchers.Default) { phone.visitsFlow().toList() }
            phone.visitsFlow().first()
            phone.shutdown()
            collected.await()
        }
        phone.close()
        phone.close()
        assertFailsWith<PhoneException.Closed> { phone.visits(VisitFilter()) }
        assertFailsWith<PhoneException.Closed> { phone.visit(dispatch) }
        assertFailsWith<PhoneException.Closed> { phone.act(dispatch, Action.Accept(eta = null), null) }
        assertFailsWith<PhoneException.Closed> { phone.syncStatus() }
        assertFailsWith<PhoneException.Closed> { phone.start() }
        assertFailsWith<PhoneException.Closed> { phone.syncNow(100.milliseconds) }
        assertFailsWith<PhoneException.Closed> { phone.signOut() }
        assertFailsWith<PhoneException.Closed> { phone.resume() }
        assertFailsWith<PhoneException.Closed> { phone.diagnostics() }
        assertFailsWith<PhoneException.Closed> { phone.visitsFlow().first() }
        phone.networkChanged(true)
    }

    @Test
    fun `many threads at once lose no action`() = withPhone { technician, handset ->
        val visits = (0 until 8L).map { server.assign(technician, hour = 1 + 3 * it) }
        val phone = handset.primed(technician)
        phone.networkChanged(false)
        coroutineScope {
            visits.map { dispatch ->
                async(Dispatchers.IO) {
                    phone.act(dispatch, Action.Accept(eta = null), null)
                    repeat(5) { phone.act(dispatch, Action.LogTime("labour", 1u), null) }
                    phone.visits(VisitFilter())
                }
            }.awaitAll()
        }
        assertEquals(48u, phone.syncStatus().unsent)
        phone.networkChanged(true)
        phone.caughtUp()
        for (dispatch in visits) assertEquals(6, server.facts(dispatch).size)
    }

    @Test
    fun `a call that the app no longer waits for is ended or done whole, never half`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        phone.networkChanged(false)
        coroutineScope {
            val acting = launch(Dispatchers.Default) { phone.act(dispatch, Action.Accept(eta = null), null) }
            acting.cancelAndJoin()
            val syncing = launch(Dispatchers.Default) { phone.syncNow(java.time.Duration.ofHours(1)) }
            syncing.cancelAndJoin()
        }
        // Whether it was taken or not, the phone knows which, and goes on.
        val unsent = phone.syncStatus().unsent
        val stage = phone.visit(dispatch).summary.stage
        assertTrue(unsent == 1u && stage == VisitStage.CONFIRMED || unsent == 0u && stage == VisitStage.DISPATCHED || unsent == 0u && stage == VisitStage.ASSIGNED, "$unsent $stage")
        phone.networkChanged(true)
        phone.caughtUp()
    }

    @Test
    fun `a second client on the same file is turned away`() = withPhone { technician, handset ->
        handset.primed(technician)
        assertFailsWith<PhoneException.AlreadyOpen> { handset.open() }
    }

    @Test
    fun `a path where no file can lie is an error with a reason`() = withPhone { _, handset ->
        val folder = Files.createTempDirectory("no-file-")
        val failed = assertFailsWith<PhoneException.StoreFailed> { handset.open(handset.options(path = folder)) }
        assertTrue(failed.reason.isNotBlank())
        Files.delete(folder)
    }

    @Test
    fun `a server address that cannot be one is a problem to read`() = withPhone { technician, handset ->
        val phone = handset.open(handset.options(url = "ftp://office.example"))
        phone.signIn(TENANT, technician)
        phone.start()
        val status = phone.syncStatusFlow().until("a problem") { it.problem != null }
        assertIs<ConnectionProblem.Address>(status.problem)
    }
}
