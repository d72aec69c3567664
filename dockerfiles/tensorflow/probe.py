# TensorFlow, inside its image. Continues the modules of curator/harness; see there for what is known.


def check_framework(expected):
    """TensorFlow imports, was built with CUDA, and its wheels hold the CUDA of the label."""
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    if not build.get("is_cuda_build"):
        raise AssertionError("this TensorFlow was built without CUDA")
    return {
        "version": tf.__version__,
        "cuda": cuda_runtime(),
        "built": str(build.get("cuda_version")),
        "cudnn_built": str(build.get("cudnn_version")),
    }


class TensorFlow(Operations):
    deep = True
    timer = "host"

    def __init__(self):
        import tensorflow as tf

        self.tf = tf
        tf.config.set_soft_device_placement(False)
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            raise AssertionError("TensorFlow sees no GPU")
        tf.config.experimental.set_memory_growth(gpus[0], True)
        tf.config.experimental.enable_tensor_float_32_execution(False)
        details = tf.config.experimental.get_device_details(gpus[0])
        bf16 = details["compute_capability"][0] >= 8
        self.dtypes = ("fp32", "fp16", "bf16") if bf16 else ("fp32", "fp16")
        self.types = {"fp32": tf.float32, "fp16": tf.float16, "bf16": tf.bfloat16}
        # For this process; every operation below is placed on the GPU or fails.
        tf.device("/GPU:0").__enter__()

    def put(self, numbers, dtype):
        return self.tf.identity(self.tf.constant(numbers, self.types[dtype]))

    def random(self, shape, dtype):
        return self.tf.cast(self.tf.random.uniform(shape), self.types[dtype])

    def scale(self, x):
        return 2 * x + 1

    def exp(self, x):
        return self.tf.exp(x)

    def total(self, x):
        return self.tf.reshape(self.tf.reduce_sum(x), [1])

    def matmul(self, a, b):
        return self.tf.matmul(a, b)

    def conv(self, image, filters):
        taps = self.tf.transpose(filters, [2, 3, 1, 0])
        return self.tf.nn.conv2d(image, taps, 1, "VALID", data_format="NCHW")

    def step(self, x, w, y):
        with self.tf.GradientTape() as tape:
            tape.watch(w)
            loss = self.tf.reduce_sum((self.tf.matmul(x, w) - y) ** 2) / 2
        return w - tape.gradient(loss, w) / 8

    def copy(self, x):
        # `identity` returns the same memory.
        return self.tf.raw_ops.DeepCopy(x=x)

    def address(self, array):
        return dlpack_address(self.tf.experimental.dlpack.to_dlpack(array))

    def timed(self, function):
        return host_timed(function, lambda _: self.tf.test.experimental.sync_devices())


CHECKS["framework"] = check_framework
use(TensorFlow)
