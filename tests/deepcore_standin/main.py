import argparse
import os
import time
from datetime import datetime

import torch
from deepcore import datasets, methods, nets
from torch import nn
from torch.utils.data import DataLoader, Subset
from utils import WeightedSubset, empty_record, save_checkpoint, str_to_bool, test, train


def arguments():
    parser = argparse.ArgumentParser()
    for name, default in {"dataset": "Digits", "model": "MLP", "selection": "Uniform", "data_path": "data"}.items():
        parser.add_argument(f"--{name}", default=default)
    for name, default in {"submodular": "GraphCut", "submodular_greedy": "LazyGreedy", "uncertainty": "Entropy"}.items():
        parser.add_argument(f"--{name}", default=default)
    for name, default in {"num_exp": 5, "num_eval": 10, "epochs": 200, "batch": 256, "test_interval": 1}.items():
        parser.add_argument(f"--{name}", default=default, type=int)
    parser.add_argument("--fraction", default=0.1, type=float)
    parser.add_argument("--seed", default=int(time.time() * 1000) % 100000, type=int)
    parser.add_argument("--gpu", default=None, nargs="+", type=int)
    parser.add_argument("--print_freq", "-p", default=20, type=int)
    parser.add_argument("--workers", "-j", default=4, type=int)
    for name, default in {"lr": 0.1, "min_lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}.items():
        parser.add_argument(f"--{name}", default=default, type=float)
    for name, default in {"optimizer": "SGD", "scheduler": "CosineAnnealingLR"}.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--nesterov", default=True, type=str_to_bool)
    parser.add_argument("--train_batch", "-tb", default=None, type=int)
    parser.add_argument("--selection_batch", "-sb", default=None, type=int)
    parser.add_argument("--selection_epochs", "-se", default=40, type=int)
    for name, default in {"selection_momentum": 0.9, "selection_weight_decay": 5e-4, "selection_lr": 0.1}.items():
        parser.add_argument(f"--{name}", default=default, type=float)
    parser.add_argument("--selection_optimizer", "-so", default="SGD")
    parser.add_argument("--selection_nesterov", "-sn", default=True, type=str_to_bool)
    parser.add_argument("--selection_test_interval", "-sti", default=1, type=int)
    parser.add_argument("--selection_test_fraction", "-stf", default=1.0, type=float)
    parser.add_argument("--balance", default=True, type=str_to_bool)
    parser.add_argument("--save_path", "-sp", default="")
    parser.add_argument("--resume", "-r", default="")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.train_batch = args.train_batch or args.batch
    args.selection_batch = args.selection_batch or args.batch
    return args


def selected(args, dst_train):
    options = {
        "epochs": args.selection_epochs,
        "selection_method": args.uncertainty,
        "balance": args.balance,
        "greedy": args.submodular_greedy,
        "function": args.submodular,
    }
    method = methods.__dict__[args.selection](dst_train, args, args.fraction, args.seed, **options)
    return {"subset": method.select(), "sel_args": options}


def path_of(args, exp, best):
    parts = (args.dataset, args.model, args.selection, f"exp{exp}", f"epoch{args.epochs}", datetime.now(), args.fraction, best)
    return os.path.join(args.save_path, "_".join(map(str, parts)) + ".ckpt")


def main():
    args = arguments()
    before = torch.load(args.resume, map_location=args.device) if args.resume else {}
    for exp in range(before.get("exp", 0), args.num_exp):
        print(f"\n================== Exp {exp} ==================\n")
        found = datasets.__dict__[args.dataset](args.data_path)
        channel, im_size, num_classes, class_names, _, _, dst_train, dst_test = found
        args.channel, args.im_size, args.num_classes, args.class_names = channel, im_size, num_classes, class_names
        torch.random.manual_seed(args.seed)
        state = {"exp": exp, **(before or selected(args, dst_train))}
        subset = state["subset"]
        print("selected", len(subset["indices"]))
        if args.save_path:
            os.makedirs(args.save_path, exist_ok=True)
            save_checkpoint({key: state[key] for key in ("exp", "subset", "sel_args")}, path_of(args, exp, "unknown"))
        weighted = "weights" in subset
        if weighted:
            dst_subset = WeightedSubset(dst_train, subset["indices"], subset["weights"])
        else:
            dst_subset = Subset(dst_train, subset["indices"])
        loader = DataLoader(dst_subset, batch_size=args.train_batch, shuffle=True, num_workers=args.workers)
        checked = DataLoader(dst_test, batch_size=args.train_batch, num_workers=args.workers)
        network = nets.__dict__[args.model](channel, num_classes, im_size).to(args.device)
        optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
        if "state_dict" in before:
            network.load_state_dict(before["state_dict"])
            optimizer.load_state_dict(before["opt_dict"])
        steps = max(1, len(loader) * args.epochs)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=args.min_lr)
        rec, best = state.get("rec") or empty_record(), state.get("best_acc1", 0.0)
        for epoch in range(before.get("epoch", 0), args.epochs):
            train(loader, network, nn.CrossEntropyLoss(reduction="none"), optimizer, scheduler, epoch, args, rec, weighted)
            right = test(checked, network, args, rec)
            if right > best:
                best = right
                trained = {"state_dict": network.state_dict(), "opt_dict": optimizer.state_dict()}
                state |= {"epoch": epoch + 1, **trained, "best_acc1": best, "rec": rec}
        if args.save_path:
            save_checkpoint(state, path_of(args, exp, f"{best:f}"))
        print("| Best accuracy: ", best)
        before = {}


if __name__ == "__main__":
    main()
