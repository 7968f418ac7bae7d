"""Print what TensorFlow and Keras are and see; `info` runs this file in a process of its own."""


def tensorflow_lines():
    """Yield TensorFlow's version and its devices, one a line."""
    import tensorflow as tf

    yield f"TensorFlow: {tf.__version__}"
    for device in tf.config.list_physical_devices():
        name = tf.config.experimental.get_device_details(device).get("device_name", "")
        yield f"device: {device.name.removeprefix('/physical_device:')} {name}".rstrip()


def keras_lines():
    """Yield Keras's version with its backend and, of another backend, the devices."""
    import keras

    backend = keras.backend.backend()
    yield f"Keras: {keras.__version__}, backend {backend}"
    if backend != "tensorflow":
        yield f"devices of {backend}: {' '.join(keras.distribution.list_devices())}"


def main() -> None:
    """Print all lines; where one of the two does not work, a line with the reason is the last."""
    for package, lines in (("TensorFlow", tensorflow_lines), ("Keras", keras_lines)):
        try:
            for line in lines():
                print(line, flush=True)
        except Exception as error:
            while error.__context__:  # TensorFlow wraps the reason in a long text of its own
                error = error.__context__
            print(f"{package}: does not work: {' '.join(str(error).split())[:200]}")
            return


if __name__ == "__main__":
    main()
