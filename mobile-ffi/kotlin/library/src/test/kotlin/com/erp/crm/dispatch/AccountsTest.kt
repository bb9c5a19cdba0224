package com.erp.crm.dispatch

import java.nio.file.Files
import java.time.Instant
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.seconds
import kotlinx.serialization.json.JsonNull

/** Tokens that expire, technicians who come and go, and a phone that is lost. */
class AccountsTest {
    private val server = RealServer.shared()

    @Test
    fun `a token that expired overnight is replaced by asking the app once`() {
        val technician = server.addTechnician()
        val dispatch = server.assign(technician)
        val tokens = Tokens(server.expiredToken(technician), server.technicianToken(technician))
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.primed(technician)
                assertEquals(listOf(dispatch), phone.visits(VisitFilter()).map { it.dispatchId })
                assertEquals(listOf(false, true), tokens.asked, "asked for one, told that it was refused, and no more")
            }
        }
    }

    @Test
    fun `an identity provider that only knows expired tokens is not asked in a loop`() {
        val technician = server.addTechnician()
        val tokens = Tokens(server.expiredToken(technician))
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.open()
                phone.signIn(TENANT, technician)
                phone.start()
                val status = phone.syncStatusFlow().until("refused twice and waiting") {
                    it.connection == ConnectionState.WAITING && it.problem == ConnectionProblem.TokenRefused
                }
                assertEquals(ConnectionProblem.TokenRefused, status.problem)
                assertEquals(listOf(false, true), tokens.asked.take(2))
                assertTrue(tokens.asked.size <= 4, "asked ${tokens.asked.size} times")
            }
        }
    }

    @Test
    fun `a technician who must sign in again is said so, and work goes on meanwhile`() {
        val technician = server.addTechnician()
        val dispatch = server.assign(technician)
        val good = server.technicianToken(technician)
        val signedIn = CopyOnWriteArrayList(listOf(true))
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String =
                if (signedIn.single()) good else throw HostException.SignInNeeded("the refresh token has expired")
        }
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.primed(technician)
                signedIn[0] = false
                phone.stop()
                phone.start()
                val status = phone.untilConnection(ConnectionState.SIGN_IN_NEEDED)
                val problem = assertIs<ConnectionProblem.SignInNeeded>(status.problem)
                assertTrue(problem.reason.contains("refresh token"), problem.reason)
                phone.act(dispatch, Action.Accept(eta = null), null)
                signedIn[0] = true
                phone.start()
                phone.caughtUp()
                assertEquals("CONFIRMED", server.status(dispatch))
            }
        }
    }

    @Test
    fun `signing out seals what is unsent, the next technician never sees it, and it is sent when its own comes back`() {
        val anna = server.addTechnician()
        val ben = server.addTechnician()
        val hers = server.assign(anna)
        val his = server.assign(ben)
        val held = CopyOnWriteArrayList(listOf(anna))
        val all = mapOf(anna to server.technicianToken(anna), ben to server.technicianToken(ben))
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String = all.getValue(held.single())
        }
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.primed(anna)
                phone.networkChanged(false)
                phone.untilConnection(ConnectionState.NO_NETWORK)
                phone.startsWork(hers)
                assertEquals(SignedOut(sealed = 4u), phone.signOut())
                assertEquals(emptyList(), phone.visits(VisitFilter()))
                assertFailsWith<PhoneException.NotSignedIn> { phone.act(hers, Action.Pause(null), null) }

                held[0] = ben
                phone.signIn(TENANT, ben)
                phone.networkChanged(true)
                phone.start()
                phone.caughtUp()
                assertEquals(listOf(his), phone.visits(VisitFilter()).map { it.dispatchId })
                assertFailsWith<PhoneException.UnknownVisit> { phone.visit(hers) }
                assertEquals("DISPATCHED", server.status(hers), "Anna's work was not sent under Ben's name")

                held[0] = anna
                val back = phone.signIn(TENANT, anna)
                assertEquals(4u, back.unsealed)
                phone.start()
                phone.caughtUp()
                assertEquals("IN_PROGRESS", server.status(hers))
            }
        }
    }

    @Test
    fun `a phone that is reported lost hands over what is unsent, then destroys its file and its key`() {
        val technician = server.addTechnician()
        val dispatch = server.assign(technician)
        Handset(server, Tokens(server.technicianToken(technician))).use { handset ->
            story {
                val phone = handset.primed(technician)
                phone.networkChanged(false)
                phone.untilConnection(ConnectionState.NO_NETWORK)
                phone.act(dispatch, Action.Accept(eta = null), null)
                val device = phone.syncStatus().deviceId
                server.revoke(device)
                phone.hearing { heard ->
                    phone.networkChanged(true)
                    val told = heard.until("the revocation") { it is Notice.Revoked }
                    assertEquals(Notice.Revoked(handedOver = 1u, sealed = 0u, erased = true), told)
                }
                server.until("the proof has reached the office") { server.device(technician)["wipedAt"] !is JsonNull }
                val proof = server.device(technician)
                assertEquals(device, proof["deviceId"].text)
                assertTrue(Instant.parse(proof["wipedAt"].text) >= Instant.parse(proof["revokedAt"].text), "$proof")
                assertEquals("DEVICE_REVOKED", server.facts(dispatch).single()["reason"].text, "what it had not sent is with the office")
                assertFalse(Files.exists(handset.file))
                assertTrue(handset.safe.kept.isEmpty(), "the key is destroyed")
                assertFailsWith<PhoneException> { phone.act(dispatch, Action.Pause(null), null) }
                assertEquals("DISPATCHED", server.status(dispatch), "what came from a lost phone waits for a person")
            }
        }
    }

    @Test
    fun `a job in the background ends early where only a person can help`() {
        val technician = server.addTechnician()
        val tokens = object : TokenProvider {
            override suspend fun fetchToken(rejected: Boolean): String = throw HostException.SignInNeeded("signed out elsewhere")
        }
        Handset(server, tokens).use { handset ->
            story {
                val phone = handset.open()
                phone.signIn(TENANT, technician)
                val report = phone.syncNow(3600.seconds)
                assertIs<ConnectionProblem.SignInNeeded>(report.problem)
            }
        }
    }
}
