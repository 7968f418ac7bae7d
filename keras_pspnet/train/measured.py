"""What trainings of recipes cost and scored, as far as they were measured."""

MEASURED = {
    "scenes": ("0.32 s a step", 0.845),
    "scenes_tiny": ("under a minute", None),
    "camvid_lite0": ("156 minutes", 0.703),
    "camvid_mobile_16_512": ("30 to 60 minutes", 0.628),
    "camvid_mobile_16_128": ("30 to 60 minutes", 0.623),
    "camvid_mobile_16_64": ("30 to 60 minutes", 0.609),
    "camvid_mobile_8_512": ("30 to 60 minutes", 0.631),
    "camvid_mobile_8_128": ("30 to 60 minutes", 0.627),
    "camvid_mobile_8_64": ("30 to 60 minutes", 0.624),
    "folder_lite0": ("1 s a step, 2.6 s at output stride 8", None),
}
"""Recipe -> cost on two cores of an AMD EPYC, and mIoU on all pictures of its validation split.

None, or a missing recipe, means that it was not measured. From benchmarks/results/: the scores
(pyramid.json, the mean of three seeds; camvid.json; mobile.json), the cost of `scenes`
(training_steps.json), and that of `camvid_lite0`, whose run shared the cores with other work. The
published recipes need several GPUs; what the authors scored is in `published_recipes`.
"""
