package com.erp.crm.dispatch.sample

import com.erp.crm.dispatch.DispatchPhone
import com.erp.crm.dispatch.PhoneException
import java.io.IOException
import java.util.logging.Level
import java.util.logging.Logger
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking

/** Exit codes: 0 all went well, 1 a command failed, 2 it could not start. */
fun main(arguments: Array<String>) {
    Logger.getLogger("").level = Level.OFF
    val code = try {
        val settings = Settings.from(arguments.toList(), System.getenv())
        if (settings == null) {
            println(USAGE)
            0
        } else {
            runBlocking { work(settings) }
        }
    } catch (wrong: WrongUsage) {
        System.err.println("${wrong.message}\nTry --help.")
        2
    } catch (failed: PhoneException) {
        System.err.println("The phone did not start: ${inWords(failed)}")
        2
    } catch (failed: IOException) {
        System.err.println("The phone did not start: ${failed.message}")
        2
    }
    // Threads of the library's are no reason to stay.
    exitProcess(code)
}

private suspend fun work(settings: Settings): Int {
    val phone = DispatchPhone.open(settings.options(), settings.tokens(), FileSafe(settings.folder))
    return phone.use {
        phone.signIn(settings.tenant, settings.technician)
        phone.start()
        val interactive = System.console() != null
        println("${settings.technician} at ${settings.server}; `help` lists the commands.")
        Commands(phone, ::println).readAll(generateSequence { if (interactive) print("> "); readlnOrNull() })
    }
}
