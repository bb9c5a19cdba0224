package com.erp.crm.dispatch

import java.time.LocalDate
import java.time.ZoneId
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch

/** A technician's day on a phone: the real library, the real server, a real socket between them. */
class TechnicianDayTest {
    private val server = RealServer.shared()

    private fun withPhone(tell: suspend (technician: String, handset: Handset) -> Unit) {
        val technician = server.addTechnician()
        Handset(server, Tokens(server.technicianToken(technician))).use { story { tell(technician, it) } }
    }

    @Test
    fun `a new phone fetches its technician's visits and nobody else's`() = withPhone { technician, handset ->
        val mine = server.assign(technician, title = "No hot water on the third floor")
        val theirs = server.assign(server.addTechnician())
        val phone = handset.primed(technician)
        assertTrue(phone.openNotice().created)
        assertEquals(listOf(mine), phone.visits(VisitFilter()).map { it.dispatchId })
        val visit = phone.visit(mine)
        assertEquals("No hot water on the third floor", visit.summary.title)
        assertEquals("Praterstraße 1, 1020 Wien", visit.summary.address)
        assertEquals("Key box left of the door", visit.accessNotes)
        assertEquals(listOf("Pressure in bar?"), visit.checklist.map { it.prompt })
        assertEquals(listOf(PartLine("PART-1", 2u, null)), visit.partsToBring)
        val unknown = assertFailsWith<PhoneException.UnknownVisit> { phone.visit(theirs) }
        assertEquals(theirs, unknown.dispatchId)
    }

    @Test
    fun `a day is listed from its midnight to the next`() = withPhone { technician, handset ->
        val soon = server.assign(technician, hour = 1)
        val tomorrow = server.assign(technician, hour = 25)
        val phone = handset.primed(technician)
        val zone = ZoneId.of("UTC")
        val day = phone.visit(soon).summary.scheduledStart!!.atZone(zone).toLocalDate()
        assertEquals(listOf(soon), phone.visits(visitsOn(day, zone)).map { it.dispatchId })
        assertEquals(listOf(tomorrow), phone.visits(visitsOn(day.plusDays(1), zone)).map { it.dispatchId })
        assertEquals(emptyList(), phone.visits(visitsOn(LocalDate.of(2001, 1, 1), zone)))
        assertEquals(listOf(soon, tomorrow), phone.visits(VisitFilter(stages = listOf(VisitStage.DISPATCHED, VisitStage.ASSIGNED))).map { it.dispatchId })
    }

    @Test
    fun `a visit that the office assigns appears while the technician looks`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        assertEquals(emptyList(), phone.visits(VisitFilter()))
        val dispatch = server.assign(technician)
        phone.untilHolding(dispatch)
        server.untilStatus(dispatch, "DISPATCHED")
    }

    @Test
    fun `a whole visit done without a network reaches the office afterwards, once`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        phone.networkChanged(false)
        phone.untilConnection(ConnectionState.NO_NETWORK)
        phone.startsWork(dispatch)
        phone.act(dispatch, Action.EditNotes(at = 0u, delete = 0u, insert = "Pump is noisy"), null)
        phone.act(dispatch, Action.AnswerChecklist("pressure", "1.8"), null)
        phone.act(dispatch, Action.UsePart("PART-1", 2u, null), null)
        phone.act(dispatch, Action.LogTime("labour", 45u), null)
        phone.act(dispatch, Action.Summarise("Pump replaced"), null)
        val taken = phone.act(dispatch, Action.Complete, null)
        assertEquals(VisitStage.COMPLETED, taken.visit.stage)
        assertEquals(10u, taken.unsent)
        val waiting = phone.syncStatus()
        assertEquals(10u, waiting.unsent)
        assertNotNull(waiting.unsentSince)
        val visit = phone.visit(dispatch)
        assertEquals("Pump is noisy", visit.notes)
        assertEquals("Pump replaced", visit.closingSummary)
        assertEquals(listOf("1.8"), visit.checklist.single().answers.map { it.value })
        assertEquals("DISPATCHED", server.status(dispatch), "the office has heard nothing")

        phone.networkChanged(true)
        phone.caughtUp()
        assertEquals("COMPLETED", server.status(dispatch))
        assertEquals(7, server.facts(dispatch).size, "seven facts, once each: notes, answers and summary are none")
    }

    @Test
    fun `a visit that is interrupted, goes on, and cannot be completed is told to the office with every reason`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        phone.startsWork(dispatch)
        val paused = phone.act(dispatch, Action.Pause("The key to the cellar is missing"), null)
        assertEquals(VisitStage.PAUSED, paused.visit.stage)
        phone.caughtUp()
        assertEquals("PAUSED", server.status(dispatch))
        assertEquals(VisitStage.IN_PROGRESS, phone.act(dispatch, Action.Resume, null).visit.stage)
        val photo = "0f".repeat(32)
        phone.act(dispatch, Action.TakePhoto(photo, 123_456u, "image/jpeg"), null)
        phone.act(dispatch, Action.Sign("Frau Huber", "5e".repeat(32)), null)
        val ended = phone.act(dispatch, Action.CannotComplete("The pump does not fit"), null)
        assertEquals(VisitStage.CANNOT_COMPLETE, ended.visit.stage)
        assertEquals(Hindrance.ALREADY_ENDED, assertFailsWith<PhoneException.NotPossible> { phone.act(dispatch, Action.Resume, null) }.hindrance)
        phone.caughtUp()
        assertEquals("CANNOT_COMPLETE", server.status(dispatch))
        val facts = server.facts(dispatch).associate { it["kind"].text to it["content"] }
        assertEquals(setOf("accepted", "travel_started", "arrived", "work_started", "paused", "resumed", "photo", "signature", "cannot_complete"), facts.keys)
        assertEquals("The key to the cellar is missing", facts.getValue("paused")["reason"].text)
        assertEquals("The pump does not fit", facts.getValue("cannot_complete")["reason"].text)
        assertEquals(listOf(photo, "image/jpeg"), facts.getValue("photo").let { listOf(it["sha256"].text, it["media_type"].text) })
        assertEquals("Frau Huber", facts.getValue("signature")["signer"].text)
    }

    @Test
    fun `a visit that the technician refuses goes back to the office with the reason, and leaves a card`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        phone.act(dispatch, Action.Reject("No ladder on the van"), null)
        phone.caughtUp()
        val card = phone.goneVisitsFlow().until("a card") { it.isNotEmpty() }.single()
        assertEquals(dispatch to GoneReason.UNASSIGNED, card.dispatchId to card.reason)
        assertEquals("PENDING", server.status(dispatch))
        val fact = server.facts(dispatch).single()
        assertEquals("rejected" to "No ladder on the van", fact["kind"].text to fact["content"]["reason"].text)
    }

    @Test
    fun `one visit is followed from its assignment to the day it is gone`() = withPhone { technician, handset ->
        val phone = handset.primed(technician)
        val dispatch = server.request(title = "Boiler leaks")
        val seen = Channel<VisitDetails?>(Channel.UNLIMITED)
        coroutineScope {
            val looking = launch { phone.visitFlow(dispatch).collect { seen.send(it) } }
            assertNull(seen.receive(), "not yet on the phone")
            server.give(dispatch, technician)
            assertEquals("Boiler leaks", seen.until("there") { it != null }?.summary?.title)
            phone.act(dispatch, Action.Accept(eta = null), null)
            seen.until("taken") { it?.summary?.stage == VisitStage.CONFIRMED }
            phone.act(dispatch, Action.EditNotes(at = 0u, delete = 0u, insert = "Bring a lamp"), null)
            seen.until("the note") { it?.notes == "Bring a lamp" }
            phone.caughtUp()
            server.cancel(dispatch, "The customer has postponed")
            seen.until("gone") { it == null }
            looking.cancelAndJoin()
        }
    }

    @Test
    fun `work survives the end of the app`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        handset.primed(technician).use { phone ->
            phone.networkChanged(false)
            phone.startsWork(dispatch)
        }
        val again = handset.open()
        assertFalse(again.openNotice().created)
        assertEquals(4u, again.syncStatus().unsent)
        again.start()
        again.caughtUp()
        assertEquals("IN_PROGRESS", server.status(dispatch))
    }

    @Test
    fun `what makes no sense is refused with the hindrance and stores nothing`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.primed(technician)
        val refused = assertFailsWith<PhoneException.NotPossible> { phone.act(dispatch, Action.Resume, null) }
        assertEquals(Hindrance.NOT_PAUSED, refused.hindrance)
        assertFailsWith<PhoneException.InvalidArgument> { phone.act("no id, this", Action.Arrive, null) }
        assertFailsWith<PhoneException.InvalidArgument> { phone.signIn(TENANT, "no id, this") }
        assertEquals(0u, phone.syncStatus().unsent)
    }

    @Test
    fun `nobody acts or connects before signing in`() = withPhone { _, handset ->
        val phone = handset.open()
        assertFailsWith<PhoneException.NotSignedIn> { phone.start() }
        assertFailsWith<PhoneException.NotSignedIn> { phone.syncNow(5.seconds) }
        assertFailsWith<PhoneException.NotSignedIn> { phone.act("DSP-1", Action.Arrive, null) }
        assertNull(phone.syncStatus().technicianId)
    }

    @Test
    fun `a visit that the office cancelled meanwhile says why, and work done on it is not lost`() = withPhone { technician, handset ->
        val untouched = server.assign(technician, hour = 1)
        val worked = server.assign(technician, hour = 4)
        val phone = handset.primed(technician)
        phone.networkChanged(false)
        phone.untilConnection(ConnectionState.NO_NETWORK)
        phone.startsWork(worked)
        server.cancel(untouched, "The customer has postponed")
        server.cancel(worked, "The customer has postponed")

        phone.networkChanged(true)
        phone.caughtUp()
        val gone = phone.goneVisitsFlow().until("a card") { cards -> cards.any { it.dispatchId == untouched } }
        val card = gone.single { it.dispatchId == untouched }
        assertEquals(GoneReason.CANCELLED, card.reason)
        assertEquals("The customer has postponed", card.note)
        assertTrue(phone.acknowledgeGone(untouched))
        assertFalse(phone.acknowledgeGone(untouched), "it was seen already")
        assertEquals(4, server.facts(worked).size, "what the technician did on site is recorded")
        // Conflict rule 17 or 2: on site before the office's cancellation arrived.
        server.until("settled") { server.status(worked) != "DISPATCHED" }
    }

    @Test
    fun `the server goes away and comes back, and nobody has to do anything`() {
        RealServer().use { own ->
            own.start()
            own.addLocation()
            val technician = own.addTechnician()
            val dispatch = own.assign(technician)
            Handset(own, Tokens(own.technicianToken(technician))).use { handset ->
                story {
                    val phone = handset.primed(technician)
                    own.stop()
                    phone.syncStatusFlow().until("disconnected") { it.connection != ConnectionState.CONNECTED }
                    phone.startsWork(dispatch)
                    val report = phone.syncNow(300.milliseconds)
                    assertFalse(report.caughtUp)
                    assertEquals(4u, report.unsent)
                    assertNotNull(report.problem)
                    own.start()
                    phone.caughtUp()
                    assertEquals("IN_PROGRESS", own.status(dispatch))
                }
            }
        }
    }

    @Test
    fun `a job in the background exchanges everything and hangs up`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        val phone = handset.open()
        phone.signIn(TENANT, technician)
        val report = phone.syncNow(30.seconds)
        assertTrue(report.caughtUp, "$report")
        assertNull(report.problem)
        assertEquals(listOf(dispatch), phone.visits(VisitFilter()).map { it.dispatchId })
        phone.untilConnection(ConnectionState.STOPPED)
        phone.act(dispatch, Action.Accept(eta = null), null)
        assertEquals("DISPATCHED", server.status(dispatch))
        assertTrue(phone.syncNow(30.seconds).caughtUp)
        assertEquals("CONFIRMED", server.status(dispatch))
    }

    @Test
    fun `a phone that sleeps holds nothing and wakes up where it was`() = withPhone { technician, handset ->
        val first = server.assign(technician, hour = 1)
        val phone = handset.primed(technician)
        phone.suspend()
        assertFailsWith<PhoneException.Closed> { phone.visits(VisitFilter()) }
        val second = server.assign(technician, hour = 4)
        phone.resume()
        phone.untilHolding(second)
        assertEquals(listOf(first, second), phone.visits(VisitFilter()).map { it.dispatchId })
    }

    @Test
    fun `the report for support is JSON and holds no token and no customer`() = withPhone { technician, handset ->
        server.assign(technician, title = "Frau Huber's boiler")
        val phone = handset.primed(technician)
        val report = phone.diagnostics()
        kotlinx.serialization.json.Json.parseToJsonElement(report)
        for (secret in listOf("Huber", "Praterstraße", "eyJ")) {
            assertFalse(report.contains(secret), "$secret in $report")
            assertTrue(handset.lines.none { it.contains(secret) }, "$secret in the log")
        }
    }
}
