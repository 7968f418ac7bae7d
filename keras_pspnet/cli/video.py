"""Videos of the command `predict`: read frames, write a video of what is drawn on each."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_pspnet.errors import UserError
from keras_pspnet.files import folder_or_nothing, partial_beside
from keras_pspnet.images import resize_image
from keras_pspnet.progress import Meter

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
"""File name endings of videos, in lower case."""

RATE = Fraction(25)
"""Frames a second of a video that does not say it."""

MISSING = 1.0
"""Seconds by which a video may be shorter than its header says: its last frame may last long."""

CRF = "20"
"""Quality of the H.264 encoder, 0 (lossless) to 51; its default is 23."""

BT709 = 1
"""Number of the colour space of HD video (ITU-T H.273, tables 2 to 4)."""


def is_video(path: Path) -> bool:
    """Return True if the file name is that of a video."""
    return path.suffix.lower() in VIDEOS


def check_video(path) -> None:
    """Check that a file holds a video, from its beginning.

    Raises:
        UserError: it does not, or PyAV is missing.
    """
    with _opened(path):
        pass


def write_drawn(path, out: Path, draw: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Draw on each frame of a video and write an H.264 .mp4 without sound, atomically.

    Of a file that was cut off, the frames that are left are drawn on.

    Args:
        path: the video.
        out: the new file; it appears when it is complete.
        draw: maps a frame (H, W, 3) uint8 RGB, upright, to another of its size.

    Returns:
        How many frames were read of a file that was cut off; None of one that is complete.

    Raises:
        UserError: the video is damaged, or the file cannot be written.
    """
    import av

    with _opened(path) as source, folder_or_nothing(out.parent), partial_beside(out) as partial:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"  # the next frames are decoded while one is used
        meter = Meter(f"predicting {Path(path).name}", _count(stream))
        try:
            with av.open(str(partial), "w", "mp4", options={"movflags": "faststart"}) as target:
                encode = _encoder(target, stream)
                count = 0
                for frame in _frames(source, path):
                    encode(frame, draw(_upright(frame)))
                    meter.advance()
                    count += 1
                encode(None, None)
            os.replace(partial, out)
            return count if _is_cut(source, frame) else None
        except av.FFmpegError as error:  # of the encoder; `_frames` handles the decoder's
            raise UserError(f"{out}: cannot be written: {error.strerror}") from error
        finally:
            meter.close()


@contextlib.contextmanager
def _opened(path) -> Iterator:
    """Open a video with PyAV and close it after the block."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{path}: PyAV is missing, which reads videos; run: pip install 'keras-pspnet[video]'"
        ) from error
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise UserError(f"{path}: not a readable video ({error.strerror}); replace it") from error
    with container:
        if not container.streams.video:
            raise UserError(f"{path}: holds no video; expected one, or a picture")
        yield container


def _count(stream) -> int:
    """Return the number of frames of a stream, or an estimate, at least 1."""
    if stream.frames:
        return stream.frames
    seconds = float((stream.duration or 0) * stream.time_base)
    return max(round(seconds * float(stream.average_rate or RATE)), 1)


def _is_cut(container, frame) -> bool:
    """Return whether a file ends before the video in it does; `frame` is the last one read.

    Numbers of frames and durations of .mp4 files do not say it: of trimmed ones they count what is
    not shown.
    """
    stream = container.streams.video[0]
    entries = getattr(stream, "index_entries", ())  # not in each version of PyAV
    if container.size and any(entry.pos + entry.size > container.size for entry in entries):
        return True
    duration = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # .mkv
    if duration is None or frame.time is None:
        return False
    hours, minutes, seconds = map(float, duration.groups())
    end = frame.time + float((frame.duration or 0) * stream.time_base)
    return 3600 * hours + 60 * minutes + seconds - end > MISSING


def _frames(container, path) -> Iterator:
    """Yield the frames of a video; a file that was cut off ends before the damaged one.

    Raises:
        UserError: no frame, or one that cannot be decoded.
    """
    import av

    frame = None
    try:
        for frame in container.decode(video=0):
            yield frame
    except av.FFmpegError as error:
        if frame is None or not _is_cut(container, frame):
            reason = f"not a readable video ({error.strerror}); replace it"
            raise UserError(f"{path}: {reason}") from error
    if frame is None:
        raise UserError(f"{path}: not a readable video (no frame in it); replace it")


def _upright(frame) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 RGB, turned as the video says."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _encoder(target, source) -> Callable:
    """Return a function that adds a picture to a video, at the time of a frame of `source`.

    Args:
        target: the container to write to.
        source: the stream of the frames.
    """
    import av

    rate = source.average_rate or RATE
    stream = target.add_stream("h264", rate=rate, options={"crf": CRF})
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = source.time_base
    context.colorspace = context.color_primaries = context.color_trc = BT709
    begin = last = size = None

    def encode(frame, picture):
        nonlocal begin, last, size
        if frame is None:
            target.mux(stream.encode(None))
            return
        if size is None:
            size = picture.shape[:2]
            stream.height, stream.width = (side + side % 2 for side in size)  # H.264 halves colours
        picture = resize_image(picture, size)  # a stream may change its size
        picture = np.pad(picture, [(0, side % 2) for side in size] + [(0, 0)], "edge")
        time = frame.pts
        if time is None or (last is not None and time <= last):
            time = 0 if last is None else last + max(round(1 / (rate * source.time_base)), 1)
        begin, last = time if begin is None else begin, time
        drawn = av.VideoFrame.from_ndarray(picture, "rgb24")
        drawn = drawn.reformat(format="yuv420p", dst_colorspace="ITU709")
        drawn.pts, drawn.time_base = time - begin, source.time_base
        target.mux(stream.encode(drawn))

    return encode
