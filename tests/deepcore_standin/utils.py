from types import SimpleNamespace

import torch
from prefetch_generator import BackgroundGenerator  # noqa: F401  # used for ImageNet only, and needed by all
from torch.utils.data import Subset


class WeightedSubset(Subset):
    def __init__(self, dataset, indices, weights):
        super().__init__(dataset, indices)
        self.weights = weights

    def __getitem__(self, idx):
        return self.dataset[self.indices[idx]], self.weights[idx]


def str_to_bool(text):
    return text.lower() in ("yes", "true", "1")


def empty_record():
    return SimpleNamespace(train_loss=[], train_acc=[], test_loss=[], test_acc=[], ckpts=[])


def train(loader, network, criterion, optimizer, scheduler, epoch, args, rec, if_weighted=False):
    network.train()
    for contents in loader:
        (inputs, targets), weights = contents if if_weighted else (contents, torch.ones(len(contents[1])))
        losses = criterion(network(inputs.to(args.device)), targets.to(args.device))
        loss = (losses * weights.to(args.device)).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    rec.train_loss.append(loss.item())


def test(loader, network, args, rec):
    network.eval()
    with torch.no_grad():
        right = [(network(inputs.to(args.device)).argmax(dim=1).cpu() == targets).float() for inputs, targets in loader]
    rec.test_acc.append(100 * torch.cat(right).mean().item())
    return rec.test_acc[-1]


def save_checkpoint(state, path):
    print(f"=> saving {path}")
    torch.save(state, path)
