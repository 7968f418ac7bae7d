"""The recipes behind the published scores, of the paper and of the authors' code.

Nobody can repeat them on a desk, and none was repeated here: the scores are the authors'. Their
ImageNet weights have no public address; give yours:

    keras-pspnet train NAME --data-dir DIR --out RUN --set backbone_weights=resnet50_v2.pth

and score as they did: keras-pspnet evaluate RUN/best.keras --dataset NAME --data-dir DIR --crop 473
473 --flip [--scales 0.5,0.75,1,1.25,1.5,1.75]; for Cityscapes --crop 713 713. "ms" below is with
those scales, "ss" with one; their test program flips in both. All are mIoU (of all classes, absent
ones as 0: mIoU_all) on the validation split where nothing else is said.
"""

from __future__ import annotations

from keras_pspnet.train.recipe_fields import Recipe

AUTHORS = {
    # ADE20K, 20,210 pictures to train, 100 epochs. 14 hours. ss 41.89, ms 42.84.
    # PSPNet on ResNet-50, ImageNet.
    "ade20k_resnet50": Recipe("ade20k"),
    # The same on ResNet-101, ImageNet. 20 hours. ss 43.10, ms 44.15.
    "ade20k_resnet101": Recipe("ade20k", "resnet101"),
    # VOC 2012 with SBD, 10,582 pictures to train, 50 epochs. 3.3 hours. ss 77.05, ms 78.02.
    # ResNet-50, ImageNet.
    "voc2012_resnet50": Recipe("voc2012", train_split="train_aug", epochs=50),
    # The same on ResNet-101, ImageNet. 5 hours. ss 79.07, ms 79.63.
    "voc2012_resnet101": Recipe("voc2012", "resnet101", train_split="train_aug", epochs=50),
    # Cityscapes, 2,975 pictures with fine labels to train, 200 epochs. 7 hours. ss 77.30, ms 78.38.
    # ResNet-50, ImageNet.
    "cityscapes_resnet50": Recipe("cityscapes", crop=(713, 713), epochs=200),
    # The same on ResNet-101, ImageNet. 10 hours. ss 78.63, ms 79.29.
    "cityscapes_resnet101": Recipe("cityscapes", "resnet101", crop=(713, 713), epochs=200),
}

PAPER = {
    # ADE20K, 150,000 iterations: 119 epochs. Tables 1 and 3: ResNet-50, ImageNet. ss 41.68,
    # ms 42.78.
    "paper_ade20k_resnet50": Recipe("ade20k", epochs=119),
    # Table 3: ResNet-101, ImageNet. ss 41.96, ms 43.29.
    "paper_ade20k_resnet101": Recipe("ade20k", "resnet101", epochs=119),
    # Table 3: ResNet-152, ImageNet. ss 42.62, ms 43.51.
    "paper_ade20k_resnet152": Recipe("ade20k", "resnet152", epochs=119),
    # Table 3: ResNet-269, ImageNet. ss 43.81, ms 44.94.
    "paper_ade20k_resnet269": Recipe("ade20k", "resnet269", epochs=119),
    # VOC 2012 with SBD, 30,000 iterations: 45 epochs. ResNet-101, ImageNet: 82.6 on the test split,
    # several scales; with COCO before it 85.4.
    "paper_voc2012_resnet101": Recipe("voc2012", "resnet101", train_split="train_aug", epochs=45),
    # Cityscapes, 90,000 iterations: 484 epochs; no rotation, no blur. ResNet-101, ImageNet: 78.4 on
    # the test split with fine labels alone; 80.2 with the 20,000 coarse ones, too.
    "paper_cityscapes_resnet101": Recipe(
        "cityscapes", "resnet101", crop=(713, 713), epochs=484, rotation=0.0, blur_share=0.0
    ),
}
