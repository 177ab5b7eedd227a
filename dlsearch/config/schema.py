"""The typed frame of the configuration.

Hydra refuses a wrong key, and a value of a wrong type, when it composes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional  # OmegaConf reads these annotations at run time

from omegaconf import MISSING

from dlsearch.config.trainer_arguments import TrainerConfig


@dataclass
class ConfirmConfig:
    """What happens to the leaders of a search, and to the default configuration, after it.

    The section ``study.confirm``, whose keys and types are checked when a search is drafted.
    """

    top: int = 3  # so many trials are trained again
    seeds: int = 5  # on so many fresh seeds, the same for each
    racing: bool = True  # no further seeds for those that can no longer win
    refit: bool = False  # then train the winner once more, on train + validation


@dataclass
class KeepConfig:
    """Which checkpoints stay on disk, beside the winner's and those still needed to go on."""

    top_k: Optional[int] = 10  # the best checkpoints of so many best trials; null: of all
    max_gib: Optional[float] = None  # and no more than so much: the worst of them go first


@dataclass
class StudyConfig:
    """What a study is: its goal, its budget, its name."""

    name: Optional[str] = None  # null: the experiment's name, or <model>_<data>
    objective: Any = "val/accuracy"  # a logged metric, or a list of them
    # maximize or minimize, or a list with several objectives; null: what their names say
    # (loss, error, rmse, … are minimized)
    direction: Any = None
    # the study's total, over all workers and resumptions; of a comparison, each arm's
    n_trials: int = 20
    # a choice that is searched: its options are compared, each after a search of its own
    compare: Optional[str] = None
    timeout: Optional[str] = None  # wall time of the search: 90s, 30m, 2h; running trials finish
    # deadline of one trial; beyond it the trial is failed(timeout)
    trial_timeout: Optional[str] = None
    target: Optional[float] = None  # stop when the objective has reached this
    enqueue: Any = None  # parameter sets to run first: a list, or a JSON/YAML file
    default_first: bool = True  # trial 0 is the default configuration
    allow_drift: bool = False  # resume although config, space, data or sampler changed
    max_attempts: int = 3  # how often a trial is tried that was lost, or whose disk was full
    # how often one that ran out of memory is tried again with its batches in twice as many parts
    max_halvings: int = 4
    # stop a search whose first so many trials all fail with one exception at one place; 0: never
    max_identical_failures: int = 3
    # train and validate one batch of each kind of configuration before anything is written
    rehearsal: bool = True
    rehearsal_timeout: Optional[str] = "60s"  # and no longer than this
    # kernel: no process that trains can open the test set, where the machine can hold that; audit:
    # the audit hook alone, for modules that must read what they make beside the data's folders
    seal: str = "kernel"
    # train the leaders again on fresh seeds, and score the winner on the test set, once;
    # study.confirm=false leaves it out, study.confirm.seeds=3 and the like say how
    confirm: Any = field(default_factory=lambda: asdict(ConfirmConfig()))
    finalize: bool = True  # the former name: false is study.confirm=false
    keep: KeepConfig = field(default_factory=KeepConfig)
    # jobs to launch, under launchers other than local; null: one, on Ray all that fit
    workers: Optional[int] = None
    storage: Optional[str] = None  # null: SQLite in the store
    # a database that is away is waited for so long; null: for ever
    storage_patience: Optional[str] = "5m"
    # SQLite on NFS and the like all the same: one machine alone, at your own risk
    storage_on_network_fs: bool = False


@dataclass
class WorkerConfig:
    """One process that serves a study; set by launchers, and by ``dlsearch worker``."""

    join: Optional[str] = None  # the study to serve
    slots: Any = "auto"  # trials at a time: GPUs, else cores
    # trials that share a GPU: a number, or auto (by measured memory); null: slots / GPUs
    slots_per_gpu: Any = None
    # CPU threads a trial, fixed when a study is opened; null: cores / slots
    threads: Optional[int] = None
    lease_s: float = 30.0  # a trial whose worker is silent for so long is lost
    # dlsearch worker: how long to wait for a study, or its database, that is not there yet
    wait: Optional[str] = None
    # launched jobs take `paths` from their machine's environment, not from the command's
    own_paths: bool = False
    session: Optional[str] = None  # set by launchers: under this name the job is told to stop


@dataclass
class PathsConfig:
    """Where things lie."""

    store: str = MISSING
    data: str = MISSING
    cache: str = MISSING
    weights: str = "${paths.store}/weights"  # what studies transfer, by digest


@dataclass
class TransferGroup:
    """A part of a net that trains by a rule of its own."""

    # globs over the names of parameters and buffers: a text with blanks between, or a list
    match: Any = MISSING
    lr: float = 1.0  # times optimizer.lr
    unfreeze: Optional[int] = 0  # first epoch, from 0, in which it trains; null: never


@dataclass
class TransferConfig:
    """What a training begins with, and what of it may change. See docs/using-models.md."""

    # study:NAME[/NUMBER], file:PATH or torchvision:NAME; null: nothing
    weights: Optional[str] = None
    prefix: Optional[str] = None  # of the net's names in a file; null: `net.`, where there is such
    head: Any = "last"  # what begins anew: the last layer, globs over names, or null for nothing
    # what stays as it is: globs over names, `loaded` for all that was loaded, null for nothing
    freeze: Any = None
    # first epoch, from 0, in which that trains after all; null: never
    unfreeze: Optional[int] = None
    lr: float = 1.0  # of what was loaded, times optimizer.lr
    # running statistics of a frozen normalisation: frozen with it, or adapt
    batch_norm: str = "frozen"
    # rules that come first, by names of yours
    groups: Dict[str, TransferGroup] = field(default_factory=dict)
    # of the weights of each source; filled in at the start
    sha256: Dict[str, str] = field(default_factory=dict)


@dataclass
class TrackingConfig:
    """What is shown in MLflow."""

    enabled: bool = True
    uri: Optional[str] = None  # null: SQLite in the store
    project: str = "default"
    system_metrics_s: Optional[float] = 10.0


@dataclass
class Frame:
    """The top level."""

    seed: int = 0  # seeds everything; a trial's own seed follows from it and the trial's number
    name: Optional[str] = None  # of a plain run
    test: bool = False  # plain run: score on the test set at the end (a row in the ledger)
    # packages of yours that configs may name
    allow_targets: List[str] = field(default_factory=list)
    study: StudyConfig = field(default_factory=StudyConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    callbacks: Any = None
    logger: Any = None  # loggers of Lightning's beside our own, by names of yours
    data: Any = None
    model: Any = None
    task: Any = None
    optimizer: Any = None
    scheduler: Any = None
    sampler: Any = None
    pruner: Any = None
    space: Any = None
