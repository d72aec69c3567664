# Numba-CUDA, inside its image. Continues the modules of curator/harness; see there for what is known.


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


def numba_kernels():
    """Return the kernels by name."""
    import math

    from numba import cuda, float32

    def scale(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = 2 * x[i] + 1

    def exp(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = math.exp(x[i])

    def total(x, y):
        if cuda.grid(1) == 0:
            result = float32(0)
            for i in range(x.size):
                result += float32(x[i])
            y[0] = result

    def random(x, y):
        i = cuda.grid(1)
        if i < y.size:
            y[i] = float32((i * 2654435769) % 16777216) / 16777216

    def copy(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = x[i]

    def matmul(a, b, c):
        i, j = cuda.grid(2)
        if i < c.shape[0] and j < c.shape[1]:
            result = float32(0)
            for k in range(a.shape[1]):
                result += float32(a[i, k]) * float32(b[k, j])
            c[i, j] = result

    return {f.__name__: cuda.jit(f) for f in (scale, exp, total, random, copy, matmul)}


class Numba(Operations):
    dtypes = ("fp32", "fp16")

    def __init__(self):
        import numpy
        from numba import cuda

        self.numpy, self.cuda, self.kernels = numpy, cuda, numba_kernels()
        self.types = {"fp32": numpy.float32, "fp16": numpy.float16}

    def each(self, name, x, y):
        """Run a kernel with a thread for each number."""
        self.kernels[name][(max(x.size, y.size) + 255) // 256, 256](x, y)
        return y

    def put(self, numbers, dtype):
        return self.cuda.to_device(self.numpy.array(numbers, dtype=self.types[dtype]))

    def random(self, shape, dtype):
        count = int(self.numpy.prod(shape))
        flat = self.cuda.device_array(count, dtype=self.types[dtype])
        return self.each("random", flat, flat).reshape(*shape)

    def scale(self, x):
        return self.each("scale", x, self.cuda.device_array_like(x))

    def exp(self, x):
        return self.each("exp", x, self.cuda.device_array_like(x))

    def total(self, x):
        return self.each("total", x, self.cuda.device_array(1, dtype=x.dtype))

    def matmul(self, a, b):
        c = self.cuda.device_array_like(a)
        blocks = tuple((side + 15) // 16 for side in c.shape)
        self.kernels["matmul"][blocks, (16, 16)](a, b, c)
        return c

    def copy(self, x):
        return self.each("copy", x, self.cuda.device_array_like(x))

    def address(self, array):
        return array.__cuda_array_interface__["data"][0]

    def timed(self, function):
        start, end = (self.cuda.event() for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


CHECKS["framework"] = check_framework
use(Numba)
