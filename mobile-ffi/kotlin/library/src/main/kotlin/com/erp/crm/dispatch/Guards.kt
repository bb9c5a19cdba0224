package com.erp.crm.dispatch

/**
 * What an app's code throws is an error, also where it is one of Java's `Error`s: `TODO()`, a failed assertion, an endless recursion.
 * The bindings hand on exceptions only; anything else would be lost without a word, or end the app on Android.
 */
private inline fun <T> guarded(call: () -> T): T = try {
    call()
} catch (failed: Exception) {
    throw failed
} catch (failed: Throwable) {
    throw HostException.Failed("$failed")
}

internal class GuardedTokens(private val app: TokenProvider) : TokenProvider {
    override suspend fun fetchToken(rejected: Boolean): String = guarded { app.fetchToken(rejected) }
}

internal class GuardedStorage(private val app: SecureStorage) : SecureStorage {
    override fun get(name: String): ByteArray? = guarded { app.get(name) }

    override fun put(name: String, value: ByteArray) = guarded { app.put(name, value) }

    override fun remove(name: String) = guarded { app.remove(name) }
}

internal class GuardedLog(private val app: LogSink) : LogSink {
    override fun log(level: LogLevel, message: String) = guarded { app.log(level, message) }
}

internal class GuardedVisits(private val app: VisitListObserver) : VisitListObserver {
    override fun onVisits(visits: List<VisitSummary>) = guarded { app.onVisits(visits) }
}

internal class GuardedVisit(private val app: VisitObserver) : VisitObserver {
    override fun onVisit(visit: VisitDetails?) = guarded { app.onVisit(visit) }
}

internal class GuardedGoneVisits(private val app: GoneVisitObserver) : GoneVisitObserver {
    override fun onGoneVisits(visits: List<GoneVisit>) = guarded { app.onGoneVisits(visits) }
}

internal class GuardedStatus(private val app: SyncStatusObserver) : SyncStatusObserver {
    override fun onSyncStatus(status: SyncStatus) = guarded { app.onSyncStatus(status) }
}

internal class GuardedNotices(private val app: NoticeObserver) : NoticeObserver {
    override fun onNotice(notice: Notice) = guarded { app.onNotice(notice) }
}
