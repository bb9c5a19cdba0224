// swift-tools-version:5.9
// The phone library for Swift. Two things are built and not kept in the repository, because they must come from one build of the
// library: the generated sources (Sources/CrmDispatch/Generated) and the library itself. scripts/build-swift makes both.
import Foundation
import PackageDescription

#if os(Linux)
// For tests on Linux: the generated C header beside the shared library, as scripts/build-swift leaves them.
let library = Context.environment["CRM_DISPATCH_LIBRARY_DIR"] ?? "build/linux"
let native: Target = .systemLibrary(name: "CrmDispatchFFI", path: "build/linux")
let linking: [LinkerSetting] = [.unsafeFlags(["-L", library, "-lcrm_dispatch_mobile", "-Xlinker", "-rpath", "-Xlinker", library])]
#else
let native: Target = .binaryTarget(name: "CrmDispatchFFI", path: "build/CrmDispatchFFI.xcframework")
let linking: [LinkerSetting] = []
#endif

let package = Package(
    name: "CrmDispatch",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "CrmDispatch", targets: ["CrmDispatch"])],
    targets: [
        native,
        .target(name: "CrmDispatch", dependencies: ["CrmDispatchFFI"], linkerSettings: linking),
        .testTarget(name: "CrmDispatchTests", dependencies: ["CrmDispatch"]),
    ]
)
