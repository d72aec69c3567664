# The program that runs inside an image: `python3 -c NONCE+HARNESS+PROBE+EXPECTATION+main()`.
#
# It travels as text, so it is in no image and changes no digest. Standard library only, and syntax
# of Python 3.8, since it runs on whatever Python an image has. Each check runs in a forked child
# with a deadline: a crash, a hang or an exit is that check's failure, and what a check prints
# cannot become part of the report, which the parent alone writes, marked with the run's nonce.
import json
import os
import select
import signal
import sys
import time

CHECK_SECONDS = 120
FACTS_LIMIT = 65536


def run_check(function, expected):
    """Return (outcome, got, detail) of one check, run in a child of its own."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            os.dup2(2, 1)
            result = {"got": function(expected)}
        except BaseException as error:  # whatever a framework raises is the finding
            result = {"error": "%s: %s" % (type(error).__name__, error)}
        else:
            status = 0
        try:
            data = json.dumps(result).encode()[:FACTS_LIMIT]
            while data:
                data = data[os.write(writer, data):]
        finally:
            os._exit(status)
    os.close(writer)
    return collect(child, reader, expected)


def collect(child, reader, expected):
    """Wait for a check's child and judge what it sent."""
    deadline = time.monotonic() + CHECK_SECONDS
    chunks = []
    timed_out = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            timed_out = True
            break
        chunk = os.read(reader, FACTS_LIMIT)
        if not chunk:
            break
        chunks.append(chunk)
    os.close(reader)
    if timed_out:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if timed_out:
        return "fail", None, "no answer within %d s" % CHECK_SECONDS
    if os.WIFSIGNALED(status):
        return "fail", None, "killed by signal %d" % os.WTERMSIG(status)
    try:
        result = json.loads(b"".join(chunks).decode())
    except ValueError:
        return "fail", None, "ended without an answer, status %d" % os.WEXITSTATUS(status)
    if "error" in result:
        return "fail", None, str(result["error"])[:2000]
    got = result["got"]
    wrong = {k: v for k, v in expected.items() if not isinstance(got, dict) or got.get(k) != v}
    if wrong:
        return "fail", got, "differs in " + ", ".join(sorted(wrong))
    return "pass", got, ""


def main(nonce, checks, expectations, gpus):
    """Run every check and write the report as the last line of stdout."""
    report = []
    for name, (function, needs_gpu) in checks.items():
        expected = expectations.get(name, {})
        start = time.monotonic()
        if needs_gpu and not gpus:
            outcome, got, detail = "not-run", None, "no GPU on this host"
        else:
            outcome, got, detail = run_check(function, expected)
        report.append({
            "name": name, "outcome": outcome, "expected": expected, "got": got,
            "detail": detail, "ms": int((time.monotonic() - start) * 1000),
        })
    text = json.dumps({"checks": report}, sort_keys=True)
    sys.stdout.write("\n%s %s\n" % (nonce, text))
    sys.stdout.flush()


def check_python(expected):
    """The interpreter, and every distribution, in the versions that the lock names."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}
    for name in expected:
        if name not in found:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = None
    found["glibc"] = platform.libc_ver()[1]
    return found


def check_libraries(expected):
    """Every CUDA library of the image loads; only the driver's own may be missing."""
    import ctypes
    import glob
    import sysconfig

    root = sysconfig.get_paths()["purelib"]
    paths = sorted(glob.glob(root + "/nvidia/**/*.so*", recursive=True))
    failed, waiting = {}, list(paths)
    progress = True
    # A library may need another one that stands later in the list.
    while waiting and progress:
        progress, failed = False, {}
        for path in list(waiting):
            try:
                ctypes.CDLL(path)
            except OSError as error:
                failed[os.path.relpath(path, root)] = str(error)
            else:
                waiting.remove(path)
                progress = True
    allowed = ("libcuda.so", "libnvidia-ml.so") + OPTIONAL
    broken = {k: v for k, v in failed.items() if not v.split(":")[0].startswith(allowed)
              and not os.path.basename(k).startswith(OPTIONAL)}
    if broken:
        raise OSError("; ".join(sorted(broken.values()))[:1500])
    return {"loaded": bool(paths), "count": len(paths)}


# Transports of multi-node libraries and profiler parts, which want hardware or its drivers.
OPTIONAL = (
    "libmlx5", "libibverbs", "librdmacm", "libucp", "libucs", "libfabric", "libpmix", "libmpi",
    "libefa", "liboshmem", "libgdrapi", "nvshmem_transport", "nvshmem_bootstrap", "libcufile_rdma",
    "libpcsamplingutil", "libnvperf", "libcheckpoint", "libcupti",
)



def cuda_runtime():
    """Return the version of the CUDA runtime that the image's wheels hold, such as 12.9."""
    import ctypes
    import glob
    import sysconfig

    pattern = sysconfig.get_paths()["purelib"] + "/nvidia/**/libcudart.so.*"
    (path,) = sorted(glob.glob(pattern, recursive=True))
    number = ctypes.c_int()
    status = ctypes.CDLL(path).cudaRuntimeGetVersion(ctypes.byref(number))
    if status:
        raise OSError("%s: cudaRuntimeGetVersion returns %d" % (path, status))
    return dotted(number.value)


def dotted(number):
    """Return CUDA's number for a version as text: 12090 is 12.9."""
    return "%d.%d" % (number // 1000, number % 1000 // 10)


CHECKS = {"python": (check_python, False), "libraries": (check_libraries, False)}
EXPECT = {}

# What every GPU check computes: y = 2x + 1 over 0..N-1, its sum, and a product of two small integer
# matrices. Whole numbers below 2**24 are exact in fp32, so the comparison is for equality.
N = 4096
SIDE = 64


def tensor_reference():
    """Return the exact results, computed in plain Python."""
    values = [2 * i + 1 for i in range(N)]
    left = [[(i * 7 + k * 3) % 11 for k in range(SIDE)] for i in range(SIDE)]
    right = [[(k * 5 + j * 2) % 13 for j in range(SIDE)] for k in range(SIDE)]
    product = [
        [sum(left[i][k] * right[k][j] for k in range(SIDE)) for j in range(SIDE)]
        for i in range(SIDE)
    ]
    return values, left, right, product


def require_equal(name, got, expected):
    """Compare nested lists of numbers exactly."""
    if got != expected:
        raise AssertionError("%s: the GPU computed other numbers than plain Python" % name)
