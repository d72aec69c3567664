# JAX, inside its image. Continues the modules of curator/harness; see there for what is known.


def check_framework(expected):
    """JAX and its CUDA plugin import, and load the CUDA that the label names."""
    import importlib

    import jax
    import jaxlib

    major = expected["cuda"].split(".")[0]
    versions = importlib.import_module("jax_cuda%s_plugin._versions" % major)
    return {
        "version": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "cuda": dotted(versions.cuda_runtime_get_version()),
        "built": dotted(versions.cuda_runtime_build_version()),
        "cudnn": dotted_cudnn(versions.cudnn_get_version()),
        "cudnn_built": dotted_cudnn(versions.cudnn_build_version()),
    }


class Jax(Operations):
    deep = True
    timer = "host"

    def __init__(self):
        # Without these JAX falls back to the CPU with a warning, and takes most of the GPU's memory.
        os.environ["JAX_PLATFORMS"] = "cuda"
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        import jax

        self.jax = jax
        jax.config.update("jax_default_matmul_precision", "highest")
        self.key = jax.random.PRNGKey(0)
        bf16 = float(jax.devices()[0].compute_capability) >= 8
        self.dtypes = ("fp32", "fp16", "bf16") if bf16 else ("fp32", "fp16")
        self.matmul = jax.jit(jax.numpy.matmul)

    def put(self, numbers, dtype):
        return self.jax.numpy.array(numbers, dtype=self.type(dtype))

    def type(self, dtype):
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]

    def random(self, shape, dtype):
        return self.jax.random.uniform(self.key, shape, dtype=self.type(dtype))

    def scale(self, x):
        return self.jax.jit(lambda x: 2 * x + 1)(x)

    def exp(self, x):
        return self.jax.numpy.exp(x)

    def total(self, x):
        return self.jax.numpy.sum(x).reshape(1)

    def conv(self, image, filters):
        return self.jax.lax.conv(image, filters, (1, 1), "VALID")

    def step(self, x, w, y):
        return w - self.jax.grad(lambda w: ((x @ w - y) ** 2).sum() / 2)(w) / 8

    def copy(self, x):
        return self.jax.numpy.array(x, copy=True)

    def address(self, array):
        return array.block_until_ready().unsafe_buffer_pointer()

    def timed(self, function):
        return host_timed(function, lambda array: array.block_until_ready())


CHECKS["framework"] = check_framework
use(Jax)
