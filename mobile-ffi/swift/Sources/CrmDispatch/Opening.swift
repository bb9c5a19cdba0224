import Foundation

extension DispatchClient {
    /// `open(options:tokens:storage:logs:)`, off the calling thread.
    public static func opened(
        options: ClientOptions,
        tokens: TokenProvider,
        storage: SecureStorage,
        logs: LogSink? = nil
    ) async throws -> DispatchClient {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global(qos: .userInitiated).async {
                continuation.resume(
                    with: Result { try DispatchClient.open(options: options, tokens: tokens, storage: storage, logs: logs) }
                )
            }
        }
    }
}

extension VisitFilter {
    /// The visits that are planned to start on the day of `date`; with `unscheduled`, those without a planned time too.
    public static func day(_ date: Date, calendar: Calendar = .current, unscheduled: Bool = false) -> VisitFilter {
        let midnight = calendar.startOfDay(for: date)
        return VisitFilter(
            from: midnight,
            until: calendar.date(byAdding: .day, value: 1, to: midnight),
            unscheduled: unscheduled
        )
    }
}

extension DispatchClient {
    /// `syncNow(deadline:)` for a task that may be cancelled, as the system's time for it runs out: the exchange ends then, and the
    /// answer says what remains.
    public func syncOnce(deadline: TimeInterval) async throws -> SyncReport {
        try Task.checkCancellation()
        return try await withTaskCancellationHandler {
            try await self.syncNow(deadline: deadline)
        } onCancel: {
            self.endSync()
        }
    }
}
