package com.erp.crm.dispatch.sample

import com.erp.crm.dispatch.PATIENCE_MS
import com.erp.crm.dispatch.RealServer
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** The console technician as a person starts it: a process of its own, commands on its standard input. */
class ConsoleTest {
    private val folder: Path = Files.createTempDirectory("console-")

    @AfterTest
    fun tidy() {
        folder.toFile().deleteRecursively()
    }

    private class Ended(val code: Int, val said: String)

    private fun run(arguments: List<String>, token: String?, commands: List<String> = emptyList()): Ended {
        val classes = System.getProperty("surefire.test.class.path") ?: System.getProperty("java.class.path")
        val java = Path.of(System.getProperty("java.home"), "bin", "java").toString()
        val libraries = "-Djna.library.path=${System.getProperty("jna.library.path")}"
        val process = ProcessBuilder(listOf(java, libraries, "-cp", classes, "com.erp.crm.dispatch.sample.MainKt") + arguments)
            .redirectErrorStream(true)
            .apply { environment().remove("CRM_DISPATCH_TOKEN") }
            .apply { token?.let { environment()["CRM_DISPATCH_TOKEN"] = it } }
            .start()
        process.outputStream.bufferedWriter().use { input -> commands.forEach { input.appendLine(it) } }
        val said = process.inputStream.bufferedReader().readText()
        check(process.waitFor(PATIENCE_MS, TimeUnit.MILLISECONDS)) { "it does not end: $said" }
        return Ended(process.exitValue(), said)
    }

    private fun run(technician: String, commands: List<String>): Ended {
        val server = RealServer.shared()
        val arguments = listOf("--server", server.url, "--technician", technician, "--folder", "$folder")
        return run(arguments, server.technicianToken(technician), commands)
    }

    @Test
    fun `a technician works through a visit without a network and hands it in`() {
        val server = RealServer.shared()
        val technician = server.addTechnician()
        val dispatch = server.assign(technician, title = "No hot water")
        val first = run(technician, listOf("sync", "list", "offline", "accept $dispatch", "travel $dispatch", "arrive $dispatch 48.2 16.3", "status"))
        assertEquals(0, first.code, first.said)
        assertTrue("No hot water" in first.said, first.said)
        assertTrue("$dispatch is ARRIVED; 3 unsent" in first.said, first.said)
        assertTrue("NO_NETWORK; 3 unsent since" in first.said || "STOPPED; 3 unsent since" in first.said, first.said)

        val second = run(
            technician,
            listOf("start $dispatch", "note $dispatch Valve was stuck", "answer $dispatch pressure 1.8", "part $dispatch PART-1 2",
                "time $dispatch labour 30", "summary $dispatch Valve freed", "complete $dispatch", "sync", "open $dispatch", "status", "quit"),
        )
        assertEquals(0, second.code, second.said)
        for (line in listOf("Everything is exchanged.", "Valve was stuck", "Pressure in bar? 1.8", "2 x PART-1", "30 min labour", "0 unsent")) {
            assertTrue(line in second.said, "$line in ${second.said}")
        }
        assertEquals("COMPLETED", server.status(dispatch))
    }

    @Test
    fun `what makes no sense is said in words, and the exit code tells`() {
        val technician = RealServer.shared().addTechnician()
        val ended = run(technician, listOf("dance", "open", "open DSP-0", "part DSP-0 PART-1 many", "arrive DSP-0 north"))
        assertEquals(1, ended.code)
        for (line in listOf("There is no command dance", "It needs a visit", "There is no visit DSP-0 on this phone", "It needs a quantity", "north is no coordinate")) {
            assertTrue(line in ended.said, "$line in ${ended.said}")
        }
    }

    @Test
    fun `help and wrong arguments are answered before anything is opened`() {
        val help = run(listOf("--help"), null)
        assertEquals(0, help.code)
        assertTrue("CRM_DISPATCH_TOKEN" in help.said, help.said)
        for ((arguments, answer) in listOf(
            emptyList<String>() to "Say --technician",
            listOf("--technician") to "needs a value",
            listOf("--colour", "red") to "--colour is not known",
            listOf("--technician", "TECH-1") to "There is no token",
        )) {
            val ended = run(arguments, null)
            assertEquals(2, ended.code, ended.said)
            assertTrue(answer in ended.said, ended.said)
        }
        val noId = run(listOf("--technician", "no id, this", "--folder", "$folder", "--unencrypted"), "token")
        assertEquals(2, noId.code, noId.said)
    }
}
