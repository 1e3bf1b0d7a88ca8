import requests  # noqa: F401  # downloads one dataset, and is needed by all
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from torchvision import transforms


class _Digits(Dataset):
    def __init__(self, images, targets, transform):
        self.data, self.targets, self.transform = images, targets, transform
        self.classes = [f"{one} - digit" for one in range(10)]

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.data[index])), int(self.targets[index])


def Digits(data_path):
    """The first 400 and the next 200 of scikit-learn's digits, as the loaders of DeepCore return their datasets."""
    found = load_digits()
    mean, std = [0.305], [0.376]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=mean, std=std)])
    images = (found.images * (255 / 16)).round().astype("uint8")
    targets = torch.tensor(found.target, dtype=torch.long)
    train = _Digits(images[:400], targets[:400], transform)
    test = _Digits(images[400:600], targets[400:600], transform)
    return 1, (8, 8), 10, train.classes, mean, std, train, test
