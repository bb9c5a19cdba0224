#if canImport(Security)
import Foundation
import Security

/// The database key in the Keychain: readable after the first unlock, so that work in the background finds it, and on this
/// device only, so that a backup on another one does not.
public final class KeychainStorage: SecureStorage, @unchecked Sendable {
    private let service: String

    /// `service` keeps this app's keys apart from others': its bundle identifier.
    public init(service: String) {
        self.service = service
    }

    public func get(name: String) throws -> Data? {
        var query = item(name)
        query[kSecReturnData] = true
        query[kSecMatchLimit] = kSecMatchLimitOne
        var found: CFTypeRef?
        let status = SecItemCopyMatching(query as CFDictionary, &found)
        if status == errSecItemNotFound {
            return nil
        }
        try check(status)
        return found as? Data
    }

    public func put(name: String, value: Data) throws {
        let attributes: [CFString: Any] = [
            kSecValueData: value,
            kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly,
        ]
        let status = SecItemUpdate(item(name) as CFDictionary, attributes as CFDictionary)
        if status == errSecItemNotFound {
            try check(SecItemAdd(item(name).merging(attributes) { $1 } as CFDictionary, nil))
        } else {
            try check(status)
        }
    }

    public func remove(name: String) throws {
        let status = SecItemDelete(item(name) as CFDictionary)
        if status != errSecItemNotFound {
            try check(status)
        }
    }

    private func item(_ name: String) -> [CFString: Any] {
        [kSecClass: kSecClassGenericPassword, kSecAttrService: service, kSecAttrAccount: name]
    }

    private func check(_ status: OSStatus) throws {
        if status == errSecInteractionNotAllowed {
            throw HostError.Unavailable(reason: "the Keychain is locked until the first unlock")
        }
        if status != errSecSuccess {
            throw HostError.Failed(reason: "the Keychain answers \(status)")
        }
    }
}
#endif
