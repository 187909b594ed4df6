"""What setup.py compiled, against its sources."""


def outdated(package):
    """Schemes whose compiled module is older than their own source or one that all of them are compiled from."""
    shared = [*package.glob("*.pxd"), *package.glob("include/**/*.h"), *package.glob("operations/**/*.pxd")]
    newest = max(path.stat().st_mtime for path in shared)
    sources = {path: max(newest, path.stat().st_mtime) for path in package.glob("schemes/*.pyx")}
    return [path.stem for path, changed in sorted(sources.items())
            if any(module.stat().st_mtime < changed for folder in ("schemes", "counting")
                   for module in (package / folder).glob(f"{path.stem}.*.so"))]
