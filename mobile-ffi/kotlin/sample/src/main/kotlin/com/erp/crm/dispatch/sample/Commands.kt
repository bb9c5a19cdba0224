package com.erp.crm.dispatch.sample

import com.erp.crm.dispatch.Action
import com.erp.crm.dispatch.DispatchPhone
import com.erp.crm.dispatch.PhoneException
import com.erp.crm.dispatch.PositionFix
import com.erp.crm.dispatch.VisitDetails
import com.erp.crm.dispatch.VisitFilter
import com.erp.crm.dispatch.VisitSummary
import com.erp.crm.dispatch.visitsOn
import java.time.LocalDate
import java.time.ZoneId
import java.time.format.DateTimeFormatter
import kotlin.time.Duration.Companion.seconds

private const val HELP = """  list [today]             visits, by planned start
  open ID                  one visit
  accept ID                take it                     reject ID REASON          refuse it
  travel ID                set off                     arrive ID [LAT LON]       be on site
  start ID                 begin to work               pause ID [REASON]         interrupt
  resume ID                go on                       complete ID               be done
  cannot ID REASON         it cannot be done
  note ID TEXT             add to the notes            answer ID ITEM VALUE      tick off an item
  part ID NUMBER QUANTITY  use a part                  time ID CATEGORY MINUTES  log time
  summary ID TEXT          close with a summary
  gone                     visits that left, and why   seen ID                   put the card away
  status                   what the office does not know yet
  sync [SECONDS]           exchange everything, waiting so long
  parked                   what the server refused     retry ID                  send it again
  offline                  pull the plug               online                    put it back
  report                   for support                 quit                      leave"""

private class Wrong(message: String) : Exception(message)

/** The commands of the console, each one or two calls of the library. */
class Commands(private val phone: DispatchPhone, private val say: (String) -> Unit) {
    private val clock: DateTimeFormatter = DateTimeFormatter.ofPattern("EEE HH:mm").withZone(ZoneId.systemDefault())

    /** Runs every line; answers the exit code. */
    suspend fun readAll(lines: Sequence<String>): Int {
        var code = 0
        for (line in lines) {
            val words = line.trim().split(Regex("\\s+")).filter(String::isNotEmpty)
            if (words.isEmpty()) continue
            if (words[0] in setOf("quit", "exit")) break
            try {
                run(words[0], words.drop(1))
            } catch (wrong: Wrong) {
                say("${wrong.message}")
                code = 1
            } catch (failed: PhoneException) {
                say(inWords(failed))
                code = 1
            }
        }
        return code
    }

    private suspend fun run(command: String, words: List<String>) {
        val id = words.firstOrNull().orEmpty()
        val rest = words.drop(1).joinToString(" ")
        when (command) {
            "help" -> say(HELP)
            "list" -> list(if (id == "today") visitsOn(LocalDate.now(), unscheduled = true) else VisitFilter(unscheduled = true))
            "open" -> show(phone.visit(named(id)))
            "accept" -> act(id, Action.Accept(eta = null))
            "reject" -> act(id, Action.Reject(text(rest, "a reason")))
            "travel" -> act(id, Action.StartTravel(eta = null))
            "arrive" -> act(id, Action.Arrive, position(words.drop(1)))
            "start" -> act(id, Action.StartWork)
            "pause" -> act(id, Action.Pause(rest.ifEmpty { null }))
            "resume" -> act(id, Action.Resume)
            "complete" -> act(id, Action.Complete)
            "cannot" -> act(id, Action.CannotComplete(text(rest, "a reason")))
            "note" -> note(named(id), text(rest, "a note"))
            "answer" -> act(id, Action.AnswerChecklist(text(words.getOrElse(1) { "" }, "an item"), text(words.drop(2).joinToString(" "), "a value")))
            "part" -> act(id, Action.UsePart(text(words.getOrElse(1) { "" }, "a part number"), number(words.getOrNull(2), "a quantity"), null))
            "time" -> act(id, Action.LogTime(text(words.getOrElse(1) { "" }, "a category"), number(words.getOrNull(2), "minutes")))
            "summary" -> act(id, Action.Summarise(text(rest, "a text")))
            "gone" -> gone()
            "seen" -> say(if (phone.acknowledgeGone(named(id))) "Put away." else "There was no card.")
            "status" -> status()
            "sync" -> sync(if (id.isEmpty()) 30u else number(id, "seconds"))
            "parked" -> parked()
            "retry" -> say("${phone.retry(named(id))} sent again")
            "offline" -> phone.networkChanged(false).also { say("Offline. What you do is kept.") }
            "online" -> phone.networkChanged(true).also { say("Online.") }
            "report" -> say(phone.diagnostics())
            else -> throw Wrong("There is no command $command; `help` lists them.")
        }
    }

    private suspend fun act(id: String, action: Action, position: PositionFix? = null) {
        val taken = phone.act(named(id), action, position)
        say("${taken.visit.dispatchId} is ${taken.visit.stage}; ${taken.unsent} unsent")
    }

    private suspend fun note(id: String, text: String) {
        val notes = phone.visit(id).notes
        val line = if (notes.isEmpty()) text else "\n$text"
        act(id, Action.EditNotes(at = notes.codePointCount(0, notes.length).toUInt(), delete = 0u, insert = line))
    }

    private suspend fun list(filter: VisitFilter) {
        val visits = phone.visits(filter)
        visits.forEach { say(line(it)) }
        if (visits.isEmpty()) say("No visits.")
    }

    private fun line(visit: VisitSummary): String {
        val start = visit.scheduledStart?.let(clock::format) ?: "any time"
        val mark = if (visit.stopWork) "  STOP WORK" else ""
        return "%-10s %-10s %-15s %s, %s%s".format(visit.dispatchId, start, visit.stage, visit.title, visit.siteName, mark)
    }

    private fun show(visit: VisitDetails) {
        say(line(visit.summary))
        val summary = visit.summary
        val lines = listOf(
            "where" to summary.address,
            "access" to visit.accessNotes,
            "ask for" to listOfNotNull(summary.contactName, summary.contactPhone).joinToString(", "),
            "to do" to visit.instructions,
            "bring" to visit.partsToBring.joinToString { "${it.quantity} x ${it.partNumber}" },
            "used" to visit.partsUsed.joinToString { "${it.quantity} x ${it.partNumber}" },
            "time" to visit.timeWorked.joinToString { "${it.minutes} min ${it.category}" },
            "notes" to visit.notes,
            "summary" to visit.closingSummary,
        )
        for ((name, value) in lines) if (!value.isNullOrEmpty()) say("  %-8s %s".format(name, value))
        for (item in visit.checklist) {
            val answers = item.answers.joinToString(" / ") { it.value }.ifEmpty { if (item.required) "(needed)" else "-" }
            say("  [${item.itemId}] ${item.prompt} $answers")
        }
        if (visit.unsent > 0u) say("  ${visit.unsent} unsent, ${visit.parked} of them refused")
    }

    private suspend fun gone() {
        val cards = phone.goneVisits()
        for (card in cards) say("${card.dispatchId} ${card.title}: ${card.reason} by ${card.by}${card.note?.let { ", “$it”" }.orEmpty()}")
        if (cards.isEmpty()) say("None left.")
    }

    private suspend fun status() {
        val status = phone.syncStatus()
        val since = status.unsentSince?.let { " since ${clock.format(it)}" }.orEmpty()
        say("${status.connection}; ${status.unsent} unsent$since, ${status.parked} refused, ${status.visitsToFetch} to fetch")
        status.problem?.let { say("  $it") }
    }

    private suspend fun sync(deadline: UInt) {
        val report = phone.syncNow(deadline.toInt().seconds)
        if (report.caughtUp) say("Everything is exchanged.") else throw Wrong("${report.unsent} unsent: ${report.problem ?: "no answer in time"}")
    }

    private suspend fun parked() {
        val actions = phone.parked()
        for (action in actions) say("${action.dispatchId} ${action.action}: ${action.code}, ${action.explanation}")
        if (actions.isEmpty()) say("Nothing was refused.")
    }

    private fun named(id: String): String = text(id, "a visit, as `list` names it")

    private fun text(given: String, what: String): String = given.ifBlank { throw Wrong("It needs $what.") }

    private fun number(given: String?, what: String): UInt =
        given?.toUIntOrNull()?.takeIf { it <= 86_400u } ?: throw Wrong("It needs $what, a whole number.")

    private fun position(given: List<String>): PositionFix? {
        if (given.isEmpty()) return null
        val (latitude, longitude) = given.map { it.toDoubleOrNull() ?: throw Wrong("$it is no coordinate.") } + listOf(null, null)
        return PositionFix(latitude!!, longitude ?: throw Wrong("It needs a longitude too."), 10.0)
    }
}

/** What a technician reads; an app has it in their language. */
fun inWords(failed: PhoneException): String = when (failed) {
    is PhoneException.AlreadyOpen -> "Another program has these visits open: close it first, or say --folder."
    is PhoneException.DiskFull -> "The disk is full: free some space, then try again."
    is PhoneException.StoreFailed -> "The store failed: ${failed.reason}"
    is PhoneException.Closed -> "The phone is closed."
    is PhoneException.WrongKey, is PhoneException.KeyMissing -> "The key does not fit these visits: bring it back, or say another --folder."
    is PhoneException.KeyUnavailable -> "The key cannot be read: ${failed.reason}"
    is PhoneException.EncryptionMismatch ->
        if (failed.encrypted) "These visits are encrypted: leave --unencrypted away." else "These visits are not encrypted: say --unencrypted."
    is PhoneException.EncryptionUnavailable -> "This library cannot encrypt: say --unencrypted."
    is PhoneException.NotSignedIn -> "Nobody is signed in."
    is PhoneException.UnknownVisit -> "There is no visit ${failed.dispatchId} on this phone."
    is PhoneException.VisitDamaged -> "The copy of ${failed.dispatchId} is damaged; the next sync fetches it anew."
    is PhoneException.NotPossible -> "That is not possible now: ${failed.hindrance.name.lowercase().replace('_', ' ')}."
    is PhoneException.InvalidArgument -> "That cannot be: ${failed.reason}"
}
