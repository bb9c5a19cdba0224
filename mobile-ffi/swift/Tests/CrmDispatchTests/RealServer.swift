import Foundation
import XCTest
#if canImport(FoundationNetworking)
import FoundationNetworking
#endif
@testable import CrmDispatch

struct Trouble: Error {
    let what: String
}

/// The program `crm-dispatch` itself, on a port that it picks, with a database of its own, and a dispatcher's hands. `scripts/test-swift`
/// names the program in CRM_DISPATCH_PROGRAM.
final class RealServer: @unchecked Sendable {
    static let tenant = "tenant-001"
    let url: String
    private let folder: URL
    private let program: String
    private let process = Process()
    private var office = ""

    init() throws {
        guard let program = ProcessInfo.processInfo.environment["CRM_DISPATCH_PROGRAM"] else {
            throw Trouble(what: "CRM_DISPATCH_PROGRAM is not set; run scripts/test-swift")
        }
        self.program = program
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("dispatch-server-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = ["serve", "--port", "0"]
        process.environment = Self.environment(in: folder)
        process.standardOutput = output
        process.standardError = Pipe()
        try process.run()
        var said = ""
        while !said.contains("\n") {
            let more = output.fileHandleForReading.availableData
            if more.isEmpty {
                throw Trouble(what: "the server ended: \(said)")
            }
            said += String(decoding: more, as: UTF8.self)
        }
        let first = said.split(separator: "\n")[0]
        guard first.hasPrefix("listening on ") else {
            throw Trouble(what: "the server says \(first)")
        }
        url = String(first.dropFirst("listening on ".count))
        office = try token(["--role", "dispatcher", "--role", "admin", "--sub", "office"])
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: folder)
    }

    private static func environment(in folder: URL) -> [String: String] {
        var environment = ProcessInfo.processInfo.environment
        environment["CRM_DISPATCH__DATABASE__URL"] = "sqlite://\(folder.appendingPathComponent("server.db").path)"
        environment["CRM_DISPATCH__AUTH__SECRET"] = "a shared secret for tests only, long enough to be one"
        environment["CRM_DISPATCH__LOG__LEVEL"] = "warn"
        return environment
    }

    func token(_ arguments: [String]) throws -> String {
        let printer = Process()
        let output = Pipe()
        printer.executableURL = URL(fileURLWithPath: program)
        printer.arguments = ["token"] + arguments
        printer.environment = Self.environment(in: folder)
        printer.standardOutput = output
        try printer.run()
        let printed = output.fileHandleForReading.readDataToEndOfFile()
        printer.waitUntilExit()
        guard printer.terminationStatus == 0 else {
            throw Trouble(what: "crm-dispatch token failed")
        }
        return String(decoding: printed, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func technicianToken(_ technician: String) throws -> String {
        try token(["--role", "technician", "--technician", technician, "--sub", technician])
    }

    @discardableResult
    func call(_ verb: String, _ path: String, _ body: String? = nil) async throws -> [String: Any] {
        var request = URLRequest(url: URL(string: "\(url)/api/v1/crm/dispatch\(path)")!)
        request.httpMethod = verb
        request.setValue("Bearer \(office)", forHTTPHeaderField: "Authorization")
        request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        request.setValue(UUID().uuidString, forHTTPHeaderField: "Idempotency-Key")
        request.httpBody = body.map { Data($0.utf8) }
        let (data, answer) = try await URLSession.shared.data(for: request)
        guard let status = (answer as? HTTPURLResponse)?.statusCode, (200..<300).contains(status) else {
            throw Trouble(what: "\(verb) \(path): \(String(decoding: data, as: UTF8.self))")
        }
        return (try? JSONSerialization.jsonObject(with: data)) as? [String: Any] ?? [:]
    }

    /// A technician who can be booked from yesterday on for eight days.
    func addTechnician() async throws -> String {
        try await call("PUT", "/locations/LOC-10", """
            {"name":"Prater house","address":"Praterstraße 1, 1020 Wien","coordinates":{"latitude":48.2137,"longitude":16.3835}}
            """)
        let id = "TECH-\(UUID().uuidString.prefix(8))"
        let dates = ISO8601DateFormatter()
        let from = dates.string(from: Date(timeIntervalSinceNow: -86_400))
        let until = dates.string(from: Date(timeIntervalSinceNow: 7 * 86_400))
        try await call("PUT", "/technicians/\(id)", """
            {"name":"Technician","skills":[{"code":"HVAC","level":3}],"homeBase":{"latitude":48.2082,"longitude":16.3738},
             "availability":[{"start":"\(from)","end":"\(until)"}]}
            """)
        return id
    }

    /// A visit of an hour, so many hours from now, that the technician has.
    func assign(_ technician: String, hour: Double = 1) async throws -> String {
        let dates = ISO8601DateFormatter()
        let start = dates.string(from: Date(timeIntervalSinceNow: hour * 3600))
        let end = dates.string(from: Date(timeIntervalSinceNow: (hour + 1) * 3600))
        let created = try await call("POST", "/requests", """
            {"serviceOrderId":"SO-\(UUID().uuidString)","locationId":"LOC-10","requiredSkills":["HVAC"],"title":"Replace the pump",
             "scheduled":{"start":"\(start)","end":"\(end)"},"checklist":[{"id":"pressure","label":"Pressure in bar?","required":true}]}
            """)
        let dispatch = try XCTUnwrap(created["dispatchId"] as? String)
        try await call("POST", "/\(dispatch)/assign", "{\"technicianId\":\"\(technician)\"}")
        return dispatch
    }

    func status(_ dispatch: String) async throws -> String {
        try XCTUnwrap(try await call("GET", "/\(dispatch)")["status"] as? String)
    }
}

/// Hands out these tokens, one a call, the last one for ever, and remembers how it was asked.
final class Tokens: TokenProvider, @unchecked Sendable {
    private let lock = NSLock()
    private let tokens: [String]
    private var calls: [Bool] = []

    init(_ tokens: [String]) {
        self.tokens = tokens
    }

    var asked: [Bool] {
        lock.lock()
        defer { lock.unlock() }
        return calls
    }

    private func next(_ rejected: Bool) -> String {
        lock.lock()
        defer { lock.unlock() }
        calls.append(rejected)
        return tokens[min(calls.count, tokens.count) - 1]
    }

    func fetchToken(rejected: Bool) async throws -> String {
        next(rejected)
    }
}

/// What a phone's secure storage keeps, in memory.
final class Safe: SecureStorage, @unchecked Sendable {
    private let lock = NSLock()
    private var kept: [String: Data] = [:]

    func get(name: String) throws -> Data? {
        lock.lock()
        defer { lock.unlock() }
        return kept[name]
    }

    func put(name: String, value: Data) throws {
        lock.lock()
        defer { lock.unlock() }
        kept[name] = value
    }

    func remove(name: String) throws {
        lock.lock()
        defer { lock.unlock() }
        kept[name] = nil
    }
}
