import Foundation
import XCTest
@testable import CrmDispatch

/// A technician's day on a phone: the real library, the real server, a real socket between them.
final class TechnicianDayTests: XCTestCase {
    private var server: RealServer!
    private var folder: URL!

    override func setUp() async throws {
        server = try RealServer()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("dispatch-phone-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDown() async throws {
        server.stop()
        try FileManager.default.removeItem(at: folder)
    }

    private func open(_ tokens: TokenProvider) async throws -> DispatchClient {
        try await DispatchClient.opened(
            options: ClientOptions(
                path: folder.appendingPathComponent("phone.db").path, serverUrl: server.url, app: "swift-story 1.0",
                encryption: .off, networkAtStart: true, logLevel: .warn),
            tokens: tokens,
            storage: Safe())
    }

    private func primed(_ technician: String) async throws -> DispatchClient {
        let phone = try await open(Tokens([try server.technicianToken(technician)]))
        _ = try await phone.signIn(tenantId: RealServer.tenant, technicianId: technician)
        try await phone.start()
        try await caughtUp(phone)
        return phone
    }

    private func caughtUp(_ phone: DispatchClient) async throws {
        try await until(phone.syncStatusSequence()) { $0.caughtUp && $0.unsent == 0 && $0.visitsToFetch == 0 }
    }

    /// Waits for a state; the test's own time limit ends one that never comes.
    private func until<Element>(_ states: AsyncStream<Element>, _ holds: (Element) -> Bool) async throws {
        for await state in states where holds(state) {
            return
        }
        throw Trouble(what: "the sequence ended before its time")
    }

    func testANewPhoneFetchesItsVisits() async throws {
        let technician = try await server.addTechnician()
        let dispatch = try await server.assign(technician)
        let phone = try await primed(technician)
        let visits = try await phone.visits(filter: VisitFilter())
        XCTAssertEqual(visits.map(\.dispatchId), [dispatch])
        let today = try await phone.visits(filter: .day(try XCTUnwrap(visits[0].scheduledStart)))
        XCTAssertEqual(today.map(\.dispatchId), [dispatch])
        do {
            _ = try await phone.visit(dispatchId: "DSP-0")
            XCTFail("there is no such visit")
        } catch let PhoneError.UnknownVisit(dispatchId) {
            XCTAssertEqual(dispatchId, "DSP-0")
        }
        try await phone.shutdown()
    }

    func testAVisitDoneWithoutANetworkReachesTheOfficeAfterwards() async throws {
        let technician = try await server.addTechnician()
        let dispatch = try await server.assign(technician)
        let phone = try await primed(technician)
        phone.networkChanged(available: false)
        try await until(phone.syncStatusSequence()) { $0.connection == .noNetwork }
        let position = PositionFix(latitude: 48.2137, longitude: 16.3835, accuracyM: 8)
        for action: Action in [.accept(eta: nil), .startTravel(eta: nil), .arrive, .startWork,
                               .answerChecklist(itemId: "pressure", value: "1.8"), .complete] {
            _ = try await phone.act(dispatchId: dispatch, action: action, position: position)
        }
        let waiting = try await phone.syncStatus()
        XCTAssertEqual(waiting.unsent, 6)
        let before = try await server.status(dispatch)
        XCTAssertEqual(before, "DISPATCHED")
        phone.networkChanged(available: true)
        try await caughtUp(phone)
        let after = try await server.status(dispatch)
        XCTAssertEqual(after, "COMPLETED")
        try await phone.shutdown()
    }

    func testAVisitThatTheOfficeCancelledSaysWhy() async throws {
        let technician = try await server.addTechnician()
        let dispatch = try await server.assign(technician)
        let phone = try await primed(technician)
        phone.networkChanged(available: false)
        try await server.call("POST", "/\(dispatch)/cancel", "{\"reason\":\"The customer has postponed\"}")
        phone.networkChanged(available: true)
        try await until(phone.goneVisitsSequence()) { $0.contains { $0.dispatchId == dispatch && $0.reason == .cancelled } }
        let seen = try await phone.acknowledgeGone(dispatchId: dispatch)
        XCTAssertTrue(seen)
        try await phone.shutdown()
    }

    func testAnExpiredTokenIsReplacedByAskingTheAppOnce() async throws {
        let technician = try await server.addTechnician()
        let tokens = Tokens(["no token any more", try server.technicianToken(technician)])
        let phone = try await open(tokens)
        _ = try await phone.signIn(tenantId: RealServer.tenant, technicianId: technician)
        let report = try await phone.syncNow(deadline: 30)
        XCTAssertTrue(report.caughtUp)
        XCTAssertEqual(tokens.asked, [false, true])
        try await phone.shutdown()
    }

    func testSigningOutSealsWhatIsUnsent() async throws {
        let technician = try await server.addTechnician()
        let dispatch = try await server.assign(technician)
        let phone = try await primed(technician)
        phone.networkChanged(available: false)
        _ = try await phone.act(dispatchId: dispatch, action: .accept(eta: nil), position: nil)
        let left = try await phone.signOut()
        XCTAssertEqual(left.sealed, 1)
        let other = try await phone.signIn(tenantId: RealServer.tenant, technicianId: try await server.addTechnician())
        XCTAssertEqual(other.unsealed, 0)
        let visits = try await phone.visits(filter: VisitFilter())
        XCTAssertEqual(visits, [])
        try await phone.shutdown()
    }

    func testARevokedPhoneLetsGoOfItsVisits() async throws {
        let technician = try await server.addTechnician()
        _ = try await server.assign(technician)
        let phone = try await primed(technician)
        let device = try await phone.syncStatus().deviceId
        try await server.call("POST", "/devices/\(device)/revoke")
        try await until(phone.syncStatusSequence()) { $0.connection == .revoked }
        try await phone.shutdown()
    }

    func testAfterShutdownSequencesEndAndCallsSaySo() async throws {
        let technician = try await server.addTechnician()
        let phone = try await primed(technician)
        let visits = try phone.visitsSequence()
        let collected = Task { () -> Int in
            var count = 0
            for await _ in visits {
                count += 1
            }
            return count
        }
        try await phone.shutdown()
        _ = await collected.value
        do {
            _ = try await phone.visits(filter: VisitFilter())
            XCTFail("the client is shut down")
        } catch PhoneError.Closed {
        }
    }
}
