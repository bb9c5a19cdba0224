package com.erp.crm.dispatch

import java.io.File
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject

private const val VISITS = 500
private const val OPENINGS = 15

private class Figure(val name: String, val p50: Double, val p95: Double, val calls: Int)

private fun figure(name: String, spans: DoubleArray): Figure {
    spans.sort()
    return Figure(name, spans[spans.size / 2], spans[spans.size * 95 / 100], spans.size)
}

/** Microseconds of one call, over [calls] after a warm-up of as many. */
private inline fun measure(name: String, calls: Int, call: (Int) -> Unit): Figure {
    repeat(calls) { call(it) }
    return figure(name, DoubleArray(calls) { micros { call(it) } })
}

private inline fun micros(work: () -> Unit): Double {
    val began = System.nanoTime()
    work()
    return (System.nanoTime() - began) / 1000.0
}

/** What a call from Kotlin costs, on a phone that holds 500 visits of the real server's. Run by scripts/bench-kotlin. */
fun main(arguments: Array<String>) = RealServer().use { server ->
    server.start()
    server.addLocation()
    val technician = server.addTechnician(days = 60)
    // Two hours apart: visits of one technician never overlap.
    val visits = (0 until VISITS).map { server.assign(technician, hour = 1 + 2L * it) }
    Handset(server, Tokens(server.technicianToken(technician))).use { handset ->
        runBlocking { run(handset, technician, visits, File(arguments.single())) }
    }
}

private suspend fun run(handset: Handset, technician: String, visits: List<String>, json: File) {
    val phone = handset.open(logs = null)
    phone.signIn(TENANT, technician)
    check(phone.syncNow(120.seconds).caughtUp)
    check(phone.visits(VisitFilter()).size == VISITS)
    val start = phone.visit(visits.first()).summary.scheduledStart!!
    val today = VisitFilter(from = start, until = start.plusSeconds(86_400))
    val subscription = phone.observeNotices(object : NoticeObserver {
        override fun onNotice(notice: Notice) = Unit
    })
    val figures = listOf(
        measure("a call that answers a boolean (isActive)", 20_000) { subscription.isActive() },
        measure("a call that answers a record (openNotice)", 20_000) { phone.openNotice() },
        measure("a suspending call (syncStatus)", 3_000) { phone.syncStatus() },
        measure("one visit of $VISITS (visit)", 1_000) { phone.visit(visits[it % VISITS]) },
        measure("today's ${phone.visits(today).size} visits of $VISITS (visits)", 1_000) { phone.visits(today) },
        measure("all $VISITS visits (visits)", 100) { phone.visits(VisitFilter()) },
        measure("one action, durable (act)", 200) { phone.act(visits[it], Action.LogTime("labour", 1u), null) },
    )
    subscription.close()
    phone.close()
    val opening = DoubleArray(OPENINGS) {
        lateinit var opened: DispatchPhone
        micros { opened = handset.open(logs = null) }.also { opened.close() }
    }
    val all = figures + figure("open, $VISITS visits", opening)

    println("%-58s %12s %12s %8s".format("from Kotlin", "p50 us", "p95 us", "calls"))
    for (figure in all) println("%-58s %12.1f %12.1f %8d".format(figure.name, figure.p50, figure.p95, figure.calls))
    val lines = all.flatMap { figure ->
        listOf("p50" to figure.p50, "p95" to figure.p95).map { (which, value) ->
            buildJsonObject {
                put("scenario", JsonPrimitive("kotlin"))
                put("figure", JsonPrimitive("${figure.name}, $which"))
                put("value", JsonPrimitive(value))
                put("unit", JsonPrimitive("us"))
                put("detail", JsonPrimitive("${figure.calls} calls"))
            }.toString()
        }
    }
    json.writeText(lines.joinToString("\n", postfix = "\n"))
}
