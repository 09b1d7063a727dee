"""Cases on disk and in memory: NIfTI, manifest, splits, fingerprint, transforms, patches."""
