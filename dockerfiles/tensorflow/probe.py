# TensorFlow, inside its image. Continues curator/harness.py; see there for what is known here.


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
        "cudnn": str(build.get("cudnn_version")),
        "sm": " ".join(build.get("cuda_compute_capabilities", [])),
    }


def check_cuda_tensor(expected):
    """A small computation on the GPU, equal to plain Python's."""
    import tensorflow as tf

    values, left, right, product = tensor_reference()
    tf.config.set_soft_device_placement(False)
    gpu = tf.config.list_physical_devices("GPU")[0]
    tf.config.experimental.set_memory_growth(gpu, True)
    with tf.device("/GPU:0"):
        y = 2 * tf.range(N, dtype=tf.float32) + 1
        total = tf.reduce_sum(tf.cast(y, tf.float64))
        c = tf.matmul(tf.constant(left, tf.float32), tf.constant(right, tf.float32))
    require_equal("elementwise", [int(v) for v in y.numpy().tolist()], values)
    require_equal("sum", int(total.numpy()), sum(values))
    require_equal("matmul", [[int(v) for v in row] for row in c.numpy().tolist()], product)
    details = tf.config.experimental.get_device_details(gpu)
    device = "cuda" if "GPU" in c.device and "compute_capability" in details else c.device
    return {"device": device, "gpu": str(details.get("device_name"))}


CHECKS["framework"] = (check_framework, False)
CHECKS["cuda_tensor"] = (check_cuda_tensor, True)
