# PyTorch, inside its image. Continues the modules of curator/harness; see there for what is known.


def check_framework(expected):
    """PyTorch imports, and is the build that the label names."""
    import torch

    return {
        "version": torch.__version__.partition("+")[0],
        "cuda": torch.version.cuda,
        "runtime": cuda_runtime(),
        "cudnn": dotted_cudnn(torch.backends.cudnn.version()),
        "cudnn_built": ".".join(str(part) for part in torch._C._cudnn.getCompileVersion()),
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()),
    }


def check_compiled_kernels(expected):
    """The capabilities that PyTorch says it was built for are in its binaries."""
    import torch

    facts = check_kernels(expected)
    flags = torch._C._cuda_getArchFlags() or ""
    cubin, ptx = architectures(flags, "sm"), architectures(flags, "compute")
    if not cubin or set(cubin) - set(facts["cubin"]) or set(ptx) - set(facts["ptx"]):
        found = "cubin %s and ptx %s" % (facts["cubin"], facts["ptx"])
        raise AssertionError("built for %r, but there is %s" % (flags, found))
    return facts


class PyTorch(Operations):
    deep = True

    def __init__(self):
        import torch

        self.torch = torch
        self.types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        bf16 = torch.cuda.get_device_capability()[0] >= 8
        self.dtypes = ("fp32", "fp16", "bf16") if bf16 else ("fp32", "fp16")

    def put(self, numbers, dtype):
        return self.torch.tensor(numbers, dtype=self.types[dtype], device="cuda")

    def random(self, shape, dtype):
        return self.torch.rand(shape, dtype=self.types[dtype], device="cuda")

    def scale(self, x):
        return 2 * x + 1

    def exp(self, x):
        return self.torch.exp(x)

    def total(self, x):
        return x.sum().reshape(1)

    def matmul(self, a, b):
        return a @ b

    def conv(self, image, filters):
        return self.torch.nn.functional.conv2d(image, filters)

    def step(self, x, w, y):
        w.requires_grad_()
        (((x @ w - y) ** 2).sum() / 2).backward()
        return (w - w.grad / 8).detach()

    def copy(self, x):
        return x.clone()

    def address(self, array):
        if not array.is_contiguous():
            raise AssertionError("a result is not in row-major order")
        return array.data_ptr()

    def timed(self, function):
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


CHECKS["framework"] = check_framework
CHECKS["kernels"] = check_compiled_kernels
use(PyTorch)
