import Foundation

/// The observers as `AsyncSequence`s. A sequence begins with the state as it is now, ends when its task is cancelled, it is let
/// go of, or the client is shut down, and takes its subscription with it.
extension DispatchClient {
    /// Notices that wait for a slow reader; the oldest of more are dropped, and `parked()` and `visit(dispatchId:)` still tell.
    public static let noticesWaitingMax = 256

    /// The visits as they are now, and again after each change. A slow reader gets the newest list and skips those between.
    public func visitsSequence(filter: VisitFilter = VisitFilter()) throws -> AsyncStream<[VisitSummary]> {
        try latest { continuation in
            try self.observeVisits(filter: filter, observer: VisitList(continuation))
        }
    }

    /// One visit as it is now, and again after each change; `nil` while the phone does not hold it.
    public func visitSequence(dispatchId: String) throws -> AsyncStream<VisitDetails?> {
        try latest { continuation in
            try self.observeVisit(dispatchId: dispatchId, observer: OneVisit(continuation))
        }
    }

    /// The visits that left and were not yet seen to leave.
    public func goneVisitsSequence() throws -> AsyncStream<[GoneVisit]> {
        try latest { continuation in
            try self.observeGoneVisits(observer: GoneVisits(continuation))
        }
    }

    /// The state of the sync as it is now, and again after each change.
    public func syncStatusSequence() throws -> AsyncStream<SyncStatus> {
        try latest { continuation in
            try self.observeSyncStatus(observer: Status(continuation))
        }
    }

    /// What the technician should be told, once each and in order, from now on.
    public func noticesSequence() throws -> AsyncStream<Notice> {
        try subscribed(keeping: .bufferingNewest(Self.noticesWaitingMax)) { continuation in
            try self.observeNotices(observer: Notices(continuation))
        }
    }

    private func latest<Element>(
        _ subscribe: (AsyncStream<Element>.Continuation) throws -> Subscription
    ) throws -> AsyncStream<Element> {
        try subscribed(keeping: .bufferingNewest(1), subscribe)
    }

    private func subscribed<Element>(
        keeping policy: AsyncStream<Element>.Continuation.BufferingPolicy,
        _ subscribe: (AsyncStream<Element>.Continuation) throws -> Subscription
    ) throws -> AsyncStream<Element> {
        let (stream, continuation) = AsyncStream.makeStream(of: Element.self, bufferingPolicy: policy)
        let subscription = try subscribe(continuation)
        continuation.onTermination = { _ in subscription.cancel() }
        return stream
    }
}

/// Hands on what the library tells. The library lets go of it when the subscription ends, and that ends the sequence.
private class Observer<Element>: @unchecked Sendable {
    let continuation: AsyncStream<Element>.Continuation

    init(_ continuation: AsyncStream<Element>.Continuation) {
        self.continuation = continuation
    }

    deinit {
        continuation.finish()
    }
}

private final class VisitList: Observer<[VisitSummary]>, VisitListObserver {
    func onVisits(visits: [VisitSummary]) throws {
        continuation.yield(visits)
    }
}

private final class OneVisit: Observer<VisitDetails?>, VisitObserver {
    func onVisit(visit: VisitDetails?) throws {
        continuation.yield(visit)
    }
}

private final class GoneVisits: Observer<[GoneVisit]>, GoneVisitObserver {
    func onGoneVisits(visits: [GoneVisit]) throws {
        continuation.yield(visits)
    }
}

private final class Status: Observer<SyncStatus>, SyncStatusObserver {
    func onSyncStatus(status: SyncStatus) throws {
        continuation.yield(status)
    }
}

private final class Notices: Observer<Notice>, NoticeObserver {
    func onNotice(notice: Notice) throws {
        continuation.yield(notice)
    }
}
