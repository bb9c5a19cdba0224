package com.erp.crm.dispatch

import java.io.Closeable
import java.time.LocalDate
import java.time.ZoneId
import kotlin.time.Duration
import kotlin.time.toJavaDuration
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.ProducerScope
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.flow.conflate
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext

/**
 * A technician's phone, as Kotlin wants it: the calls of [DispatchClientInterface], observers as [Flow], and [Closeable].
 *
 * One a database file, for as long as the app lives. Every call may be made from any thread; the `suspend` functions block
 * none, so they may be made from the main thread. Errors are [PhoneException], a sealed class.
 */
class DispatchPhone private constructor(private val client: DispatchClient) :
    DispatchClientInterface by client, Closeable {

    private val ended = CompletableDeferred<Unit>()

    /** [visits] as they are now, and again after each change. A slow collector gets the newest list and skips those between. */
    fun visitsFlow(filter: VisitFilter = VisitFilter()): Flow<List<VisitSummary>> = latest {
        client.observeVisits(
            filter,
            object : VisitListObserver {
                override fun onVisits(visits: List<VisitSummary>) {
                    trySend(visits)
                }
            },
        )
    }

    /** One visit as it is now, and again after each change; `null` while the phone does not hold it. */
    fun visitFlow(dispatchId: String): Flow<VisitDetails?> = latest {
        client.observeVisit(
            dispatchId,
            object : VisitObserver {
                override fun onVisit(visit: VisitDetails?) {
                    trySend(visit)
                }
            },
        )
    }

    /** [goneVisits] as they are now, and again after each change. */
    fun goneVisitsFlow(): Flow<List<GoneVisit>> = latest {
        client.observeGoneVisits(
            object : GoneVisitObserver {
                override fun onGoneVisits(visits: List<GoneVisit>) {
                    trySend(visits)
                }
            },
        )
    }

    /** [syncStatus] as it is now, and again after each change. */
    fun syncStatusFlow(): Flow<SyncStatus> = latest {
        client.observeSyncStatus(
            object : SyncStatusObserver {
                override fun onSyncStatus(status: SyncStatus) {
                    trySend(status)
                }
            },
        )
    }

    /** What the technician should be told, once each and in order, from the moment of collecting on. */
    fun noticesFlow(): Flow<Notice> = subscribed {
        client.observeNotices(
            object : NoticeObserver {
                override fun onNotice(notice: Notice) {
                    // Unlike a state, a notice must not be skipped: a slow collector holds up the library's notices instead.
                    trySendBlocking(notice)
                }
            },
        )
    }

    /** [syncNow] with Kotlin's own duration. */
    suspend fun syncNow(deadline: Duration): SyncReport = client.syncNow(deadline.toJavaDuration())

    override fun observeVisits(filter: VisitFilter, observer: VisitListObserver): Subscription =
        client.observeVisits(filter, GuardedVisits(observer))

    override fun observeVisit(dispatchId: String, observer: VisitObserver): Subscription =
        client.observeVisit(dispatchId, GuardedVisit(observer))

    override fun observeGoneVisits(observer: GoneVisitObserver): Subscription = client.observeGoneVisits(GuardedGoneVisits(observer))

    override fun observeSyncStatus(observer: SyncStatusObserver): Subscription = client.observeSyncStatus(GuardedStatus(observer))

    override fun observeNotices(observer: NoticeObserver): Subscription = client.observeNotices(GuardedNotices(observer))

    /** Ends everything, for good: flows complete, later calls throw [PhoneException.Closed]. */
    override suspend fun shutdown() {
        try {
            client.shutdown()
        } finally {
            ended.complete(Unit)
        }
    }

    /** [shutdown] for those who cannot suspend; waits for the disk, so call it off the main thread. Once is enough. */
    override fun close() {
        try {
            runBlocking { shutdown() }
        } catch (_: PhoneException.Closed) {
            // It was closed before, which is what was asked for.
        }
    }

    private fun <T> latest(subscribe: ProducerScope<T>.() -> Subscription): Flow<T> = subscribed(subscribe).conflate()

    /** Subscribes when collected; collecting no longer, or the end of the phone, ends the subscription. */
    private fun <T> subscribed(subscribe: ProducerScope<T>.() -> Subscription): Flow<T> = callbackFlow {
        val subscription = subscribe()
        val untilTheEnd = launch {
            ended.await()
            channel.close()
        }
        awaitClose {
            untilTheEnd.cancel()
            subscription.cancel()
            subscription.close()
        }
    }

    companion object {
        /** [DispatchClient]'s constructor, off the calling thread. */
        suspend fun open(
            options: ClientOptions,
            tokens: TokenProvider,
            storage: SecureStorage,
            logs: LogSink? = null,
        ): DispatchPhone = withContext(Dispatchers.IO) {
            DispatchPhone(DispatchClient.open(options, GuardedTokens(tokens), GuardedStorage(storage), logs?.let(::GuardedLog)))
        }
    }
}

/** The visits that are planned to start on this day in this time zone; with [unscheduled], those without a planned time too. */
fun visitsOn(day: LocalDate, zone: ZoneId = ZoneId.systemDefault(), unscheduled: Boolean = false): VisitFilter = VisitFilter(
    from = day.atStartOfDay(zone).toInstant(),
    until = day.plusDays(1).atStartOfDay(zone).toInstant(),
    unscheduled = unscheduled,
)
