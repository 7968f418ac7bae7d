"""Recipes with the settings of the authors' code (semseg) and of the paper.

The scores in the comments are the authors'. None was reproduced here: training needs several GPUs.
The authors' ImageNet weights have no public address; pass your own file:

    keras-pspnet train NAME --data-dir DIR --out RUN --set backbone_weights=resnet50_v2.pth

Score as the authors do, on the validation split:

    keras-pspnet evaluate RUN/best.keras --dataset NAME --data-dir DIR --crop 473 473 --flip
        [--scales 0.5,0.75,1,1.25,1.5,1.75]

with `--crop 713 713` for Cityscapes. Scores are mIoU in percent on the validation split, absent
classes counted as 0 (our mIoU_all), from ImageNet weights: "ss" at one scale, "ms" at the six
above, both with `--flip`. "paper" stands for the paper's own training, which is longer or shorter:
ADE20K 150,000 iterations (119 epochs), VOC 2012 30,000 (45), Cityscapes 90,000 (484).
"""

from keras_pspnet.train.recipe_fields import Recipe

PUBLISHED = {
    # ADE20K: 20,210 training pictures.
    # ss 41.89, ms 42.84, 14 hours; paper (tables 1 and 3) ss 41.68, ms 42.78.
    "ade20k_resnet50": Recipe("ade20k"),
    # ss 43.10, ms 44.15, 20 hours; paper (table 3) ss 41.96, ms 43.29.
    "ade20k_resnet101": Recipe("ade20k", "resnet101"),
    # Not in semseg; epochs as in the paper (table 3): ss 42.62, ms 43.51.
    "ade20k_resnet152": Recipe("ade20k", "resnet152", epochs=119),
    # Not in semseg; epochs as in the paper (table 3): ss 43.81, ms 44.94.
    "ade20k_resnet269": Recipe("ade20k", "resnet269", epochs=119),
    # VOC 2012 with SBD: 10,582 training pictures.
    # ss 77.05, ms 78.02, 3.3 hours.
    "voc2012_resnet50": Recipe("voc2012", train_split="train_aug", epochs=50),
    # ss 79.07, ms 79.63, 5 hours; paper, several scales, test split: 82.6, and 85.4 after
    # pre-training on COCO.
    "voc2012_resnet101": Recipe("voc2012", "resnet101", train_split="train_aug", epochs=50),
    # Cityscapes: 2,975 training pictures with fine labels.
    # ss 77.30, ms 78.38, 7 hours.
    "cityscapes_resnet50": Recipe("cityscapes", crop=(713, 713), epochs=200),
    # ss 78.63, ms 79.29, 10 hours.
    "cityscapes_resnet101": Recipe("cityscapes", "resnet101", crop=(713, 713), epochs=200),
    # The paper's own, without rotation and blur. Test split: 78.4, and 80.2 with the 20,000
    # coarsely labelled pictures too.
    "paper_cityscapes_resnet101": Recipe(
        "cityscapes", "resnet101", crop=(713, 713), epochs=484, rotation=0.0, blur_share=0.0
    ),
}
