"""Which method of a peer is which call here: the lines that `python -m benchmarks.peer_numbers` measures."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One method of a peer, and the call that stands for it here.

    Attributes:
        library: "TorchJD", "LibMTL" (as released) or "LibMTL main".
        theirs: the peer's call, or LibMTL's class and the arguments of its `backward`.
        ours: the call here.
        tasks: of the Jacobians and the network. Two where the peer goes through tasks in an order that it draws.
        epoch: number of steps in one of the peer's epochs; 0 where it knows none.
        before: what LibMTL's training loop would have set by the first step, as arguments of a dict.
        only: the one shape [T, D] of the Jacobians, without training; None for those that all share.
    """

    library: str
    theirs: str
    ours: str
    tasks: int = 3
    epoch: int = 0
    before: str = ""
    only: tuple[int, int] | None = None


LINES = [
    Line("TorchJD", "Sum()", "equal()"),
    Line("TorchJD", "Mean()", "fixed([1 / 3] * 3)"),
    Line("TorchJD", "MGDA()", "mgda()"),
    Line("TorchJD", "UPGrad()", "upgrad()"),
    Line("TorchJD", "UPGrad()", "upgrad()", only=(4, 4)),
    Line("TorchJD", "UPGrad()", "upgrad()", only=(8, 5)),
    Line("TorchJD", "UPGrad()", "upgrad()", only=(6, 3)),
    Line("TorchJD", "DualProj()", "dualproj()"),
    Line("TorchJD", "DualProj()", "dualproj()", only=(6, 3)),
    Line("TorchJD", "CAGrad(c=0.5)", "cagrad(0.5)"),
    Line("TorchJD", "PCD()", "pcd()"),
    Line("TorchJD", "IMTLG()", "imtl_g()"),
    Line("TorchJD", "IMTLG()", "imtl_g()", only=(4, 2)),
    Line("TorchJD", "AlignedMTL()", "aligned_mtl(mean=True)"),
    Line("TorchJD", "ConFIG()", "config()"),
    Line("TorchJD", "FairGrad(alpha=1.0)", "fairgrad(1.0)"),
    Line("TorchJD", "NashMTL(n_tasks=3)", "nash_mtl(max_norm=1.0, weigh_tasks=False)"),
    Line("TorchJD", "PCGrad()", "pcgrad()", 2),
    Line("TorchJD", "GradVac()", "gradvac(beta=0.5)", 2),
    Line("TorchJD", "Krum(n_byzantine=0)", "krum(squared=False)"),
    Line("TorchJD", "TrimmedMean(trim_number=1)", "trimmed_mean(1)"),
    Line(
        "TorchJD",
        "ExcessMTL()",
        "excess_mtl(step_size=1.0, eps=1e-7, relative_from_first=False, weigh_tasks=False)",
    ),
    Line("TorchJD", "MoDoWeighting()", "modo(rho=0.1)"),
    Line("TorchJD", "SDMGradWeighting()", "sdmgrad()"),
    Line("TorchJD", "GeometricMean()", "geometric()"),
    Line("TorchJD", "UW(3)", "uncertainty(optimizer=optax.sgd(0.05))"),
    Line("TorchJD", "IMTLL(3)", "imtl_l(optimizer=optax.sgd(0.05))"),
    Line("TorchJD", "STCH(mu=0.5)", "stch(mu=0.5)"),
    Line("TorchJD", "GradDrop()", "graddrop()"),
    Line("TorchJD", "GradDrop(leak=torch.tensor([0.0, 0.3, 1.0]))", "graddrop(leak=[0.0, 0.3, 1.0])"),
    Line("TorchJD", "Random()", "random()"),
    Line("TorchJD", "DWA()", "dwa(20)", epoch=20),
    Line("TorchJD", "FAMO(3)", "famo()"),
    Line(
        "TorchJD",
        "COSMOS(lambda_=0.5, weights=torch.tensor([0.2, 0.3, 0.5]))",
        "cosmos(0.5, preference=[0.2, 0.3, 0.5])",
    ),
    Line("TorchJD", "PBI(theta=2.0, weights=torch.tensor([0.6, 0.3, 0.5]))", "pbi(2.0, preference=[0.6, 0.3, 0.5])"),
    Line("TorchJD", "GramianWeightedAggregator(CRMOGMWeighting(IMTLGWeighting()))", "cr_mogm(imtl_g())"),
    Line("LibMTL", "EW", "equal()"),
    Line("LibMTL", 'MGDA, mgda_gn="none"', "mgda()"),
    Line("LibMTL", 'MGDA, mgda_gn="l2"', "mgda(normalization=l2_norms)"),
    Line("LibMTL", 'MGDA, mgda_gn="loss"', "mgda(normalization=loss_values)"),
    Line("LibMTL", "CAGrad, calpha=0.5, rescale=0", "cagrad(0.5)"),
    Line("LibMTL", "CAGrad, calpha=0.5, rescale=1", "cagrad(0.5, rescale=True)"),
    Line("LibMTL", "PCGrad", "pcgrad()", 2),
    Line("LibMTL", "GradVac, beta=0.5", "gradvac(beta=0.5, follow_all=False)", 2),
    Line("LibMTL", "GLS", "geometric()"),
    Line("LibMTL", "UW", "uncertainty(log_variance=-0.5, optimizer=optax.sgd(0.05))"),
    Line("LibMTL", 'RLW, dist="Normal"', "random()"),
    Line("LibMTL", "DWA, T=2.0", "dwa(20)", epoch=20),
    Line(
        "LibMTL",
        "GradNorm, alpha=1.5",
        "gradnorm(1.5, softmax=True, normalize=False, weigh_tasks=False, optimizer=optax.sgd(0.05), "
        "initial_losses=[2.0, 1.0, 0.5])",
        before="epoch=1, train_loss_buffer=torch.tensor([[2.0], [1.0], [0.5]])",
    ),
    Line("LibMTL", "IMTL", "imtl_g()"),
    Line("LibMTL main", "GradVac, GradVac_beta=0.5, GradVac_group_type=0", "gradvac(beta=0.5)", 2),
    Line("LibMTL main", "Nash_MTL, update_weights_every=1, optim_niter=20, max_norm=1.0", "nash_mtl(max_norm=1.0)"),
    Line("LibMTL main", "FairGrad, FairGrad_alpha=1.0", "fairgrad(1.0, weigh_tasks=True)"),
    Line("LibMTL main", "UPGrad, UPGrad_norm_eps=1e-4, UPGrad_reg_eps=1e-4", "upgrad()"),
    Line(
        "LibMTL main",
        "MoCo, MoCo_beta=0.5, MoCo_beta_sigma=0.5, MoCo_gamma=0.1, MoCo_gamma_sigma=0.5, MoCo_rho=0.0",
        "moco(normalization=norms_over_losses, projection=simplex_softmax)",
    ),
    Line("LibMTL main", "DB_MTL, DB_beta=0.9, DB_beta_sigma=0.0", "db_mtl()"),
    Line("LibMTL main", "ExcessMTL, robust_step_size=0.01", "excess_mtl(eps=1e-7, mean=False)"),
    Line("LibMTL main", "MoDo, MoDo_gamma=1e-3, MoDo_rho=0.1", "modo(gamma=1e-3, rho=0.1)"),
    Line("LibMTL main", "SDMGrad, SDMGrad_lamda=0.3, SDMGrad_niter=20", "sdmgrad(rate=5.0)"),
    Line("LibMTL main", "RLW", "random()"),
    Line("LibMTL main", "FAMO, FAMO_w_lr=0.025, FAMO_w_gamma=1e-3", "famo()"),
    Line("LibMTL main", "Aligned_MTL", "aligned_mtl()"),
    Line("LibMTL main", "STCH, STCH_mu=1.0, STCH_warmup_epoch=1", "mean_log()"),
    Line(
        "LibMTL main",
        "STCH, STCH_mu=1.0, STCH_warmup_epoch=0",
        "preference(log_losses(stch(1.0, preference=[1.0] * 3, reference=log([2.0, 1.0, 0.5]))), [3.0] * 3)",
        before="epoch=1, average_loss=torch.tensor([2.0, 1.0, 0.5]), average_loss_count=1",
    ),
]
