package com.erp.crm.dispatch

import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject

/** Two people change the same visit without knowing of each other: what each of them is told, and what becomes of their work. */
class ConflictsTest {
    private val server = RealServer.shared()

    private fun withPhones(tell: suspend (anna: String, hers: Handset, ben: String, his: Handset) -> Unit) {
        val (anna, ben) = List(2) { server.addTechnician() }
        Handset(server, Tokens(server.technicianToken(anna))).use { hers ->
            Handset(server, Tokens(server.technicianToken(ben))).use { his -> story { tell(anna, hers, ben, his) } }
        }
    }

    @Test
    fun `whose visit was given to somebody else meanwhile is told what became of the work, and why the visit is gone`() =
        withPhones { anna, hers, ben, his ->
            val dispatch = server.assign(anna, title = "Boiler leaks")
            val phone = hers.primed(anna)
            phone.goesOffline()
            val before = Instant.now().minusSeconds(1)
            phone.act(dispatch, Action.Accept(eta = null), null)
            server.giveTo(dispatch, ben)
            phone.hearing { heard ->
                phone.networkChanged(true)
                val told = heard.until("a ruling") { it is Notice.Ruled }
                assertEquals(Notice.Ruled(dispatch, RulingOutcome.STALE, "FORMER_EPOCH"), told)
            }
            phone.caughtUp()
            val card = phone.goneVisitsFlow().until("a card") { it.isNotEmpty() }.single()
            assertEquals(listOf(dispatch, "Boiler leaks", GoneReason.REASSIGNED, "office", 0u), listOf(card.dispatchId, card.title, card.reason, card.by, card.unsent))
            assertTrue(card.at > before, "${card.at}")
            assertFailsWith<PhoneException.UnknownVisit> { phone.visit(dispatch) }
            assertEquals(dispatch, his.primed(ben).visits(VisitFilter()).single().dispatchId)
            assertEquals("accepted", server.facts(dispatch).single()["kind"].text, "it is in the history")
        }

    @Test
    fun `a crew that answers differently sees both answers and both notes, and its lead settles it`() = withPhones { anna, hers, ben, his ->
        val dispatch = server.request()
        server.give(dispatch, anna, crew = ben)
        val (lead, second) = hers.primed(anna) to his.primed(ben)
        for (phone in listOf(lead, second)) phone.goesOffline()
        lead.act(dispatch, Action.AnswerChecklist("pressure", "1.8"), null)
        lead.act(dispatch, Action.EditNotes(at = 0u, delete = 0u, insert = "Valve worn. "), null)
        second.act(dispatch, Action.AnswerChecklist("pressure", "0.4"), null)
        second.act(dispatch, Action.EditNotes(at = 0u, delete = 0u, insert = "Pump noisy. "), null)
        assertEquals(Hindrance.NOT_LEAD, assertFailsWith<PhoneException.NotPossible> { second.act(dispatch, Action.Complete, null) }.hindrance)
        for (phone in listOf(lead, second)) phone.networkChanged(true)
        for (phone in listOf(lead, second)) {
            val visit = assertNotNull(phone.visitFlow(dispatch).until("both answers") { it?.checklist?.single()?.answers?.size == 2 })
            assertEquals(setOf("1.8" to anna, "0.4" to ben), visit.checklist.single().answers.map { it.value to it.technicianId }.toSet())
            assertTrue("Valve worn. " in visit.notes && "Pump noisy. " in visit.notes, visit.notes)
        }
        lead.act(dispatch, Action.AnswerChecklist("pressure", "1.8"), null)
        lead.caughtUp()
        second.visitFlow(dispatch).until("one answer") { it?.checklist?.single()?.answers?.map { answer -> answer.value } == listOf("1.8") }
        assertEquals(1, server.report(dispatch)["checklist"].jsonArray.single()["answers"].jsonArray.size)
    }

    @Test
    fun `a window that the office moves on the way is shown as a proposal until the technician has seen it`() = withPhones { anna, hers, _, _ ->
        val dispatch = server.assign(anna)
        val phone = hers.primed(anna)
        assertEquals(Hindrance.NO_PROPOSAL, assertFailsWith<PhoneException.NotPossible> { phone.act(dispatch, Action.AcknowledgeWindow(1u), null) }.hindrance)
        phone.act(dispatch, Action.Accept(eta = null), null)
        phone.act(dispatch, Action.StartTravel(eta = null), null)
        phone.caughtUp()
        val from = Instant.now().truncatedTo(ChronoUnit.SECONDS).plus(3, ChronoUnit.HOURS)
        server.move(dispatch, from, from.plus(1, ChronoUnit.HOURS))
        phone.visitsFlow().until("a proposal") { visits -> visits.single().windowProposed }
        val proposed = assertNotNull(phone.visit(dispatch).proposedWindow)
        assertEquals(from to from.plus(1, ChronoUnit.HOURS), proposed.from to proposed.until)
        phone.act(dispatch, Action.AcknowledgeWindow(proposed.windowRevision), null)
        phone.caughtUp()
        phone.visitFlow(dispatch).until("no proposal") { it != null && it.proposedWindow == null }
        assertEquals(from, phone.visit(dispatch).summary.arrivalFrom)
        val seen = server.seen(dispatch)
        assertEquals(from, Instant.parse(seen["confirmedWindow"]["start"].text), "$seen")
        assertEquals(JsonNull, seen.jsonObject["proposedWindow"] ?: JsonNull, "$seen")
    }

    @Test
    fun `an order that is cancelled while the technician is on site is a request to stop, and ends as not completed`() = withPhones { anna, hers, _, _ ->
        val dispatch = server.assign(anna)
        val phone = hers.primed(anna)
        phone.startsWork(dispatch)
        phone.caughtUp()
        server.cancel(dispatch, "The customer has called it off")
        phone.visitsFlow().until("asked to stop") { visits -> visits.single().stopWork }
        assertEquals(Hindrance.STOP_WORK, assertFailsWith<PhoneException.NotPossible> { phone.act(dispatch, Action.Complete, null) }.hindrance)
        phone.act(dispatch, Action.LogTime("labour", 20u), null)
        phone.act(dispatch, Action.CannotComplete("Asked to stop"), null)
        phone.caughtUp()
        assertEquals("CANNOT_COMPLETE", server.status(dispatch))
        assertEquals(6, server.facts(dispatch).size, "the labour is recorded")
    }

    @Test
    fun `work that the server refuses waits with the reason, can be tried again, and is sent once the visit is the technician's again`() {
        RealServer().use { own ->
            own.start()
            own.addLocation()
            val technician = own.addTechnician()
            val dispatch = own.request()
            own.backUp()
            own.give(dispatch, technician)
            Handset(own, Tokens(own.technicianToken(technician))).use { handset ->
                story {
                    val phone = handset.primed(technician)
                    val before = Instant.now().minusSeconds(1)
                    phone.act(dispatch, Action.Accept(eta = null), null)
                    phone.caughtUp()
                    phone.goesOffline()
                    for (action in listOf(Action.StartTravel(eta = null), Action.Arrive, Action.StartWork)) phone.act(dispatch, action, null)
                    // The copy is from before the assignment: in it the visit is nobody's.
                    own.restore()
                    phone.hearing { heard ->
                        phone.networkChanged(true)
                        val told = heard.until("the server has come back from a copy") { it is Notice.ServerReplaced }
                        assertEquals(Notice.ServerReplaced(requeued = 1u), told, "what it had heard of it must be said again")
                    }
                    val refused = phone.syncStatusFlow().until("refused") { it.parked == 4u && it.caughtUp }
                    assertEquals(4u, refused.unsent, "nothing is lost")
                    val parked = phone.parked()
                    assertEquals(listOf("accepted", "travel_started", "arrived", "work_started"), parked.map { it.action })
                    for (action in parked) {
                        assertEquals(dispatch to "DISPATCH_NOT_FOUND", action.dispatchId to action.code)
                        assertTrue(dispatch in action.explanation, action.explanation)
                        assertTrue(action.takenAt in before..Instant.now(), "${action.takenAt}")
                    }
                    assertEquals(4u, phone.visit(dispatch).parked, "the visit has left, and its work can be looked at")
                    assertEquals(4u, phone.goneVisits().single { it.dispatchId == dispatch }.unsent)

                    assertEquals(4u, phone.retry(dispatch))
                    phone.syncStatusFlow().until("refused again") { it.parked == 4u && it.caughtUp }
                    assertEquals(0u, phone.retry("DSP-0"), "nothing waits there")

                    own.give(dispatch, technician)
                    phone.caughtUp()
                    assertEquals(emptyList(), phone.parked())
                    assertEquals("IN_PROGRESS", own.status(dispatch))
                    assertNull(phone.visit(dispatch).unsent.takeIf { it > 0u })
                }
            }
        }
    }
}
