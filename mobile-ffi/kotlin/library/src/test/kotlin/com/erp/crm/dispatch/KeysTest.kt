package com.erp.crm.dispatch

import java.io.RandomAccessFile
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertTrue

/** Where an SQLite file's header has the version of its schema. */
private const val SCHEMA_VERSION_AT = 60L

/** The phone's file at rest, and the key in the app's secure storage. */
class KeysTest {
    private val server = RealServer.shared()

    private fun withPhone(tell: suspend (technician: String, handset: Handset) -> Unit) {
        val technician = server.addTechnician()
        Handset(server, Tokens(server.technicianToken(technician))).use { story { tell(technician, it) } }
    }

    private fun contains(bytes: ByteArray, text: String) = String(bytes, Charsets.ISO_8859_1).contains(String(text.toByteArray(), Charsets.ISO_8859_1))

    @Test
    fun `whoever has the files of a phone reads nothing in them`() = withPhone { technician, handset ->
        server.assign(technician, title = "Frau Huber's boiler")
        handset.primed(technician).close()
        val files = Files.list(handset.file.parent).use { found -> found.filter(Files::isRegularFile).toList() }
        assertTrue(handset.file in files)
        for (file in files) {
            for (words in listOf("Huber", "Praterstra", "SQLite format")) assertFalse(contains(Files.readAllBytes(file), words), "$words in $file")
        }
        assertTrue(handset.safe.kept.isNotEmpty(), "the key is in the app's keeping")
    }

    @Test
    fun `another key does not open the file, and the right one still does`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        handset.primed(technician).use { phone ->
            phone.networkChanged(false)
            phone.act(dispatch, Action.Accept(eta = null), null)
        }
        val right = handset.safe.kept.toMap()
        val wrong = Safe().apply { for ((name, key) in right) kept[name] = ByteArray(key.size) { 7 } }
        assertFailsWith<PhoneException.WrongKey> { handset.open(storage = wrong) }
        assertFailsWith<PhoneException.KeyMissing> { handset.open(storage = Safe()) }
        val plain = handset.options().copy(encryption = Encryption.OFF)
        assertTrue(assertFailsWith<PhoneException.EncryptionMismatch> { handset.open(plain) }.encrypted)
        assertEquals(1u, handset.open().syncStatus().unsent, "nothing was touched")
    }

    @Test
    fun `a key is changed under the technician's hands and the old one opens nothing`() = withPhone { technician, handset ->
        val dispatch = server.assign(technician)
        handset.primed(technician).use { phone ->
            val before = handset.safe.kept.mapValues { it.value.toList() }
            phone.rotateKey()
            assertFalse(before == handset.safe.kept.mapValues { it.value.toList() })
            phone.act(dispatch, Action.Accept(eta = null), null)
            phone.close()
            val old = Safe().apply { for ((name, key) in before) kept[name] = key.toByteArray() }
            assertFailsWith<PhoneException.WrongKey> { handset.open(storage = old) }
        }
        assertEquals(VisitStage.CONFIRMED, handset.open().visit(dispatch).summary.stage)
    }

    @Test
    fun `secure storage that throws is an error with its reason, and the next opening is as if nothing was`() = withPhone { technician, handset ->
        handset.primed(technician).close()
        val locked = object : Safe() {
            override fun get(name: String): ByteArray? = throw HostException.Unavailable("the phone was not unlocked yet")
        }
        val failed = assertFailsWith<PhoneException.KeyUnavailable> { handset.open(storage = locked) }
        assertTrue("unlocked" in failed.reason, failed.reason)
        val broken = object : Safe() {
            override fun get(name: String): ByteArray? = throw IllegalStateException("no hardware")
        }
        assertFailsWith<PhoneException.KeyUnavailable> { handset.open(storage = broken) }
        assertEquals(technician, handset.open().syncStatus().technicianId)
    }

    @Test
    fun `without encryption nothing is asked of the secure storage`() = withPhone { technician, handset ->
        val nobody = object : Safe() {
            override fun get(name: String): ByteArray? = throw IllegalStateException("not to be asked")
        }
        val phone = handset.open(handset.options().copy(encryption = Encryption.OFF), storage = nobody)
        phone.signIn(TENANT, technician)
        assertEquals(technician, phone.syncStatus().technicianId)
        assertFailsWith<PhoneException.EncryptionMismatch> { phone.rotateKey() }
        phone.close()
        assertFalse(assertFailsWith<PhoneException.EncryptionMismatch> { handset.open() }.encrypted)
    }

    @Test
    fun `a file of a newer release is set aside with its work, and the newer release sends it when the file is put back`() {
        val technician = server.addTechnician()
        val dispatch = server.assign(technician)
        // In the clear, so that the version can be written into it.
        Handset(server, Tokens(server.technicianToken(technician)), Encryption.OFF).use { handset ->
            story {
                handset.primed(technician).use { phone ->
                    phone.goesOffline()
                    phone.startsWork(dispatch)
                }
                val known = RandomAccessFile(handset.file.toFile(), "rw").use { file ->
                    file.seek(SCHEMA_VERSION_AT)
                    file.readInt().also {
                        file.seek(SCHEMA_VERSION_AT)
                        file.writeInt(9_000)
                    }
                }
                val aside = handset.open().use { older ->
                    val notice = older.openNotice()
                    assertTrue(notice.created)
                    assertTrue("newer release" in notice.setAsideReason.orEmpty(), "$notice")
                    assertEquals(null, older.syncStatus().technicianId)
                    Path.of(assertNotNull(notice.setAsidePath))
                }
                RandomAccessFile(aside.toFile(), "rw").use { file ->
                    file.seek(SCHEMA_VERSION_AT)
                    file.writeInt(known)
                }
                Files.move(aside, handset.file, StandardCopyOption.REPLACE_EXISTING)
                val phone = handset.open()
                assertEquals(4u, phone.syncStatus().unsent)
                phone.start()
                phone.caughtUp()
                assertEquals(4, server.facts(dispatch).size)
                assertEquals("IN_PROGRESS", server.status(dispatch))
            }
        }
    }
}
