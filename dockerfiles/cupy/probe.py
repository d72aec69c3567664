# CuPy, inside its image. Continues curator/harness.py; see there for what is known here.


def check_framework(expected):
    """CuPy imports, and the compiler that it loads is of the CUDA that the label names."""
    import cupy
    from cupy_backends.cuda.libs import nvrtc

    return {
        "version": cupy.__version__,
        "cuda": "%d.%d" % tuple(nvrtc.getVersion()),
        "runtime": cuda_runtime(),
        "built": dotted(cupy.cuda.runtime.CUDA_VERSION)
        if hasattr(cupy.cuda.runtime, "CUDA_VERSION") else "",
    }


def check_cuda_tensor(expected):
    """A small computation on the GPU, equal to plain Python's."""
    import cupy

    values, left, right, product = tensor_reference()
    y = 2 * cupy.arange(N, dtype=cupy.float32) + 1
    require_equal("elementwise", [int(v) for v in y.get().tolist()], values)
    require_equal("sum", int(y.astype(cupy.float64).sum().get()), sum(values))
    c = cupy.array(left, dtype=cupy.float32) @ cupy.array(right, dtype=cupy.float32)
    require_equal("matmul", [[int(v) for v in row] for row in c.get().tolist()], product)
    name = cupy.cuda.runtime.getDeviceProperties(c.device.id)["name"].decode()
    return {"device": "cuda", "gpu": name}


CHECKS["framework"] = (check_framework, False)
CHECKS["cuda_tensor"] = (check_cuda_tensor, True)
