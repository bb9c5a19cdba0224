package com.erp.crm.dispatch

import java.io.File
import java.net.ServerSocket
import java.net.URI
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption
import java.time.Duration
import java.time.Instant
import java.time.temporal.ChronoUnit
import java.util.Base64
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import javax.crypto.Mac
import javax.crypto.spec.SecretKeySpec
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** Long enough for a loaded machine; a story that waits this long has failed. */
const val PATIENCE_MS = 30_000L

const val TENANT = "tenant-001"

/**
 * The program `crm-dispatch` itself, on a free port with a database of its own, and a dispatcher's hands.
 */
class RealServer(private val folder: Path = Files.createTempDirectory("dispatch-server-")) : AutoCloseable {
    val port: Int = ServerSocket(0).use { it.localPort }
    val url = "http://127.0.0.1:$port"
    private val http: HttpClient = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build()
    private var process: Process? = null
    private val office: String by lazy { token("--role", "dispatcher", "--role", "admin", "--sub", "office") }
    private val names = AtomicInteger()

    /** Starts it, or starts it again on the same database and port. */
    fun start(): RealServer {
        val log = folder.resolve("server.log").toFile()
        val started = command("serve").redirectError(ProcessBuilder.Redirect.appendTo(log)).start()
        process = started
        val lines = started.inputStream.bufferedReader()
        val first = lines.readLine() ?: error("the server did not start:\n${log.readText()}")
        check(first == "listening on $url") { "the server says: $first" }
        // Nothing reads on: what it says later must not fill the pipe.
        Thread { lines.forEachLine { } }.apply { isDaemon = true }.start()
        return this
    }

    /** Asks it to end, and waits until it has. */
    fun stop() {
        val running = process ?: return
        running.destroy()
        check(running.waitFor(PATIENCE_MS, TimeUnit.MILLISECONDS)) { "the server does not end" }
        process = null
    }

    /** Keeps a copy of the database as it is now. */
    fun backUp() {
        stop()
        Files.copy(folder.resolve("server.db"), folder.resolve("copy.db"))
        start()
    }

    /** Comes back with the copy in the database's place, and says so to it as an operator does. */
    fun restore() {
        stop()
        Files.copy(folder.resolve("copy.db"), folder.resolve("server.db"), StandardCopyOption.REPLACE_EXISTING)
        val told = command("restored").redirectErrorStream(true).start()
        val said = told.inputStream.bufferedReader().readText()
        check(told.waitFor() == 0) { "crm-dispatch restored: $said" }
        start()
    }

    override fun close() {
        process?.destroyForcibly()?.waitFor()
        folder.toFile().deleteRecursively()
    }

    private fun command(vararg arguments: String): ProcessBuilder {
        val program = System.getProperty("crm.dispatch.program")
        check(File(program).canExecute()) { "$program is not there; scripts/test-kotlin builds it" }
        return ProcessBuilder(program, *arguments).directory(folder.toFile()).apply {
            environment()["CRM_DISPATCH__SERVER__PORT"] = "$port"
            environment()["CRM_DISPATCH__DATABASE__URL"] = "sqlite://${folder.resolve("server.db")}"
            environment()["CRM_DISPATCH__AUTH__SECRET"] = SECRET
            environment()["CRM_DISPATCH__LOG__LEVEL"] = "warn"
        }
    }

    /** What `crm-dispatch token` prints. */
    fun token(vararg arguments: String): String {
        val process = command("token", *arguments).redirectErrorStream(true).start()
        val printed = process.inputStream.bufferedReader().readText().trim()
        check(process.waitFor() == 0) { "crm-dispatch token: $printed" }
        return printed
    }

    fun technicianToken(technician: String): String =
        token("--role", "technician", "--technician", technician, "--sub", technician)

    /** A technician's token that ended so long ago, signed as the identity provider would have. */
    fun expiredToken(technician: String, ago: Duration = Duration.ofHours(8)): String {
        val end = Instant.now().minus(ago).epochSecond
        val claims = """{"iss":"crm-dispatch","aud":"crm-dispatch","iat":${end - 3600},"nbf":${end - 3600},"exp":$end,""" +
            """"sub":"$technician","tenant":"$TENANT","roles":["technician"],"technician":"$technician"}"""
        val base64 = Base64.getUrlEncoder().withoutPadding()
        val signed = listOf("""{"typ":"JWT","alg":"HS256"}""", claims).joinToString(".") { base64.encodeToString(it.toByteArray()) }
        val mac = Mac.getInstance("HmacSHA256").apply { init(SecretKeySpec(SECRET.toByteArray(), "HmacSHA256")) }
        return "$signed.${base64.encodeToString(mac.doFinal(signed.toByteArray()))}"
    }

    /** A REST call of the office's; answers the body, and fails on anything but success. */
    fun call(method: String, path: String, body: String? = null): JsonElement {
        val publisher = body?.let(HttpRequest.BodyPublishers::ofString) ?: HttpRequest.BodyPublishers.noBody()
        val request = HttpRequest.newBuilder(URI("$url/api/v1/crm/dispatch$path"))
            .timeout(Duration.ofSeconds(30))
            .header("Authorization", "Bearer $office")
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", "kotlin-${names.incrementAndGet()}-${System.nanoTime()}")
            .method(method, publisher)
            .build()
        val answer = http.send(request, HttpResponse.BodyHandlers.ofString())
        check(answer.statusCode() in 200..299) { "$method $path: ${answer.statusCode()} ${answer.body()}" }
        return if (answer.body().isBlank()) JsonNull else Json.parseToJsonElement(answer.body())
    }

    fun addLocation(id: String = "LOC-10") {
        call("PUT", "/locations/$id", """{"name":"Prater house","address":"Praterstraße 1, 1020 Wien",
            "coordinates":{"latitude":48.2137,"longitude":16.3835},"accessNotes":"Key box left of the door"}""")
    }

    /** A technician who can be booked from yesterday on, under a name that no other story has. */
    fun addTechnician(days: Long = 8): String {
        val id = "TECH-${100 + names.incrementAndGet()}"
        val from = Instant.now().truncatedTo(ChronoUnit.HOURS).minus(1, ChronoUnit.DAYS)
        call("PUT", "/technicians/$id", """{"name":"Technician $id","skills":[{"code":"HVAC","level":3}],
            "homeBase":{"latitude":48.2082,"longitude":16.3738},
            "availability":[{"start":"$from","end":"${from.plus(days, ChronoUnit.DAYS)}"}],"vanStock":{"PART-1":5}}""")
        return id
    }

    /** A visit of an hour, [hour] hours from now, that [technician] has. */
    fun assign(technician: String, hour: Long = 1, title: String = "Replace the circulation pump"): String =
        request(hour, title).also { give(it, technician) }

    /** A visit of an hour, [hour] hours from now, that nobody has. */
    fun request(hour: Long = 1, title: String = "Replace the circulation pump"): String {
        val start = Instant.now().truncatedTo(ChronoUnit.SECONDS).plus(hour, ChronoUnit.HOURS)
        val order = "SO-${System.nanoTime()}-${names.incrementAndGet()}"
        val created = call("POST", "/requests", """{"serviceOrderId":"$order","locationId":"LOC-10","requiredSkills":["HVAC"],
            "title":"$title","instructions":"Ring twice.","scheduled":{"start":"$start","end":"${start.plus(1, ChronoUnit.HOURS)}"},
            "checklist":[{"id":"pressure","label":"Pressure in bar?","required":true}],
            "requiredParts":[{"part":"PART-1","quantity":2}]}""")
        return created["dispatchId"].text
    }

    fun give(dispatch: String, technician: String, crew: String? = null) {
        val others = crew?.let { "\"$it\"" }.orEmpty()
        call("POST", "/$dispatch/assign", """{"technicianId":"$technician","crew":[$others]}""")
    }

    fun giveTo(dispatch: String, another: String) {
        call("POST", "/$dispatch/reassign", """{"technicianId":"$another"}""")
    }

    /** Agrees with the customer on another time to arrive. */
    fun move(dispatch: String, from: Instant, until: Instant) {
        call("POST", "/$dispatch/reschedule", """{"arrivalWindow":{"start":"$from","end":"$until"},"customerConfirmed":true}""")
    }

    fun cancel(dispatch: String, reason: String) {
        call("POST", "/$dispatch/cancel", """{"reason":"$reason"}""")
    }

    fun revoke(device: String) {
        call("POST", "/devices/$device/revoke")
    }

    fun seen(dispatch: String): JsonElement = call("GET", "/$dispatch")

    fun status(dispatch: String): String = seen(dispatch)["status"].text

    fun report(dispatch: String): JsonElement = call("GET", "/$dispatch/report")

    /** A visit's facts, by device and number. */
    fun facts(dispatch: String): List<JsonElement> = report(dispatch)["facts"].jsonArray

    fun device(technician: String): JsonElement = call("GET", "/devices?technicianId=$technician")["items"].jsonArray.first()

    /** Asks again and again, because the office has no other way, until [holds]. */
    fun until(what: String, holds: () -> Boolean) {
        val deadline = System.nanoTime() + PATIENCE_MS * 1_000_000
        while (!holds()) {
            check(System.nanoTime() < deadline) { "never $what" }
            Thread.onSpinWait()
        }
    }

    fun untilStatus(dispatch: String, wanted: String) = until("$dispatch $wanted") { status(dispatch) == wanted }

    companion object {
        private const val SECRET = "a shared secret for tests only, long enough to be one"
        private val started: RealServer by lazy {
            RealServer().start().also { server ->
                Runtime.getRuntime().addShutdownHook(Thread { server.close() })
                server.addLocation()
            }
        }

        /** The one that stories share which do not stop it. */
        fun shared(): RealServer = started
    }
}

operator fun JsonElement.get(name: String): JsonElement = jsonObject[name] ?: error("no $name in $this")

val JsonElement.text: String get() = jsonPrimitive.contentOrNull ?: error("$this is no text")
