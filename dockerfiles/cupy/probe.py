# CuPy, inside its image. Continues the modules of curator/harness; see there for what is known.


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


class CuPy(Operations):
    dtypes = ("fp32", "fp16")

    def __init__(self):
        import cupy

        self.cupy = cupy
        self.types = {"fp32": cupy.float32, "fp16": cupy.float16}

    def put(self, numbers, dtype):
        return self.cupy.array(numbers, dtype=self.types[dtype])

    def random(self, shape, dtype):
        return self.cupy.random.random(shape, dtype=self.cupy.float32).astype(self.types[dtype])

    def scale(self, x):
        return 2 * x + 1

    def exp(self, x):
        return self.cupy.exp(x)

    def total(self, x):
        return x.sum(dtype=x.dtype).reshape(1)

    def matmul(self, a, b):
        return a @ b

    def copy(self, x):
        return x.copy()

    def address(self, array):
        if not array.flags.c_contiguous:
            raise AssertionError("a result is not in row-major order")
        return array.data.ptr

    def timed(self, function):
        start, end = (self.cupy.cuda.Event() for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end)


CHECKS["framework"] = check_framework
use(CuPy)
