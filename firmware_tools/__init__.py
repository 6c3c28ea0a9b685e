"""The offline side: keys, root ceremonies, packing, the catalogue, and what the server signs with online keys.

The command `fairlead-firmware` and the server call the same functions. `now_s` is always epoch seconds.

    ceremony.init(directory, *, fleet, now_s, threshold=2, keys=3, passphrase=None, public=None, expiry=None) -> Fleet
        keys, first root and empty catalogue, signed; offline keys at fleet.offline / "targets-1.pem" and so on
    rotation.rotate(fleet, KeyChange(...), *, now_s, passphrase=None) -> (Path, ...)    draft of the next root
    packing.pack(source, out, ReleaseSpec(...), *, level=19) -> Description    artifact, its description beside it
    catalogue.add(fleet, artifact, *, now_s) -> Description                    into the draft of the catalogue
    catalogue.remove(fleet, package, version, *, now_s), catalogue.set_floor(fleet, package, counter, *, now_s)
    signing.sign(fleet, key_files, *, now_s, passphrase=None, confirm=None) -> list[Signed]
        complete drafts become fleet.metadata / "<N>.targets.json"; `[0].published` is that path or None
    online.make_snapshot(targets_bytes, signer, *, version, now_s, days=7) -> bytes
    online.make_timestamp(snapshot_bytes, signer, *, version, now_s, days=7) -> bytes
    keys.load(path, passphrase=None) -> CryptoSigner       any key file, `online/deployment.pem` included
    fleet.Fleet(directory)      .roots() verified chain, .root(), .targets(), .targets_bytes(),
                                .metadata, .online, .offline, .artifact(sha256)
    root_chain.read_root(bytes), verify_chain([bytes])     the rules that a root must keep; `.roles["deployment"]`
    metadata.read_targets(bytes), entry(targets, path) -> (TargetInfo, length, sha256), floors(targets)

Errors are fleet_protocol.errors: PolicyError for the engineer's mistakes, ProtocolError for invalid documents.
"""
