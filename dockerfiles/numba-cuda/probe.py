# Numba-CUDA, inside its image. Continues curator/harness.py; see there for what is known here.


def check_framework(expected):
    """Numba-CUDA imports, and compiles a kernel with the CUDA that the label names."""
    from importlib.metadata import version

    from numba import cuda, float32

    def scale(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = 2 * x[i] + 1

    ptx, _ = cuda.compile_ptx(scale, (float32[:], float32[:]), cc=(8, 0))
    if ".target sm_80" not in ptx:
        raise AssertionError("the compiled kernel is not for sm_80")
    return {
        "version": version("numba-cuda"),
        "numba": version("numba"),
        "cuda": cuda_runtime(),
    }


def check_cuda_tensor(expected):
    """A small computation on the GPU, equal to plain Python's."""
    import numpy
    from numba import cuda, float32

    values, left, right, product = tensor_reference()

    @cuda.jit
    def scale(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = 2 * x[i] + 1

    @cuda.jit
    def matmul(a, b, c):
        i, j = cuda.grid(2)
        if i < c.shape[0] and j < c.shape[1]:
            total = float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total

    x = cuda.to_device(numpy.arange(N, dtype=numpy.float32))
    y = cuda.device_array_like(x)
    scale[(N + 127) // 128, 128](x, y)
    require_equal("elementwise", [int(v) for v in y.copy_to_host().tolist()], values)
    require_equal("sum", int(y.copy_to_host().astype(numpy.float64).sum()), sum(values))
    a = cuda.to_device(numpy.array(left, dtype=numpy.float32))
    b = cuda.to_device(numpy.array(right, dtype=numpy.float32))
    c = cuda.device_array((SIDE, SIDE), dtype=numpy.float32)
    matmul[(SIDE // 16, SIDE // 16), (16, 16)](a, b, c)
    require_equal("matmul", [[int(v) for v in r] for r in c.copy_to_host().tolist()], product)
    name = cuda.get_current_device().name
    return {"device": "cuda", "gpu": name.decode() if isinstance(name, bytes) else str(name)}


CHECKS["framework"] = (check_framework, False)
CHECKS["cuda_tensor"] = (check_cuda_tensor, True)
