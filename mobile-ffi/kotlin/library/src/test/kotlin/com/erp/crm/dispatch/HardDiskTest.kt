package com.erp.crm.dispatch

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNotNull

/** Disks that refuse: really full ones, and folders that really may not be written. */
class HardDiskTest {
    private val server = RealServer.shared()

    /** Tells [story] on a disk of so many kilobytes, and looks whether the office has every fact that was taken, once. */
    private fun onADiskOf(kilobytes: Int, story: String) {
        val technician = server.addTechnician()
        val dispatch = server.assign(technician)
        val java = ProcessHandle.current().info().command().orElse("java")
        val classes = System.getProperty("surefire.test.class.path") ?: System.getProperty("java.class.path")
        val program = listOf(java, "-Djna.library.path=${System.getProperty("jna.library.path")}", "-cp", classes, "com.erp.crm.dispatch.HardDiskKt")
        val arguments = listOf(story, server.url, technician, server.technicianToken(technician), dispatch)
        val process = ProcessBuilder(listOf(System.getProperty("crm.dispatch.as.app"), "$kilobytes") + program + arguments).redirectErrorStream(true).start()
        val said = process.inputStream.bufferedReader().readText()
        assertEquals(0, process.waitFor(), said)
        val taken = assertNotNull(said.lines().singleOrNull { it.startsWith(TOLD) }, said).removePrefix(TOLD).toInt()
        assertEquals(taken, server.facts(dispatch).size, said)
        assertEquals("IN_PROGRESS", server.status(dispatch))
    }

    @Test
    fun `a full disk refuses to open and to act, loses nothing that was taken, and all of it reaches the office once`() =
        onADiskOf(4096, "full")

    @Test
    fun `a folder that may only be read is an error with a reason, and keeps what it has`() = onADiskOf(4096, "read-only")
}
