"""A network of a user with the blocks of a ResNet-50."""

from torch import Tensor, nn


class Bottlenecks(nn.Module):
    """A narrow ResNet-50: its stem, and two of its blocks."""

    num_features = 32

    def __init__(self) -> None:
        from torchvision.models.resnet import Bottleneck

        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        narrow = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
        self.blocks = nn.Sequential(Bottleneck(16, 8, stride=2, downsample=narrow), Bottleneck(32, 8))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(images)).mean(dim=(2, 3))
        return features
