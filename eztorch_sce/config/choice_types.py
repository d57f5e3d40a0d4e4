"""Types of the settings that are chosen by name, as type checkers see them.

Reading such a setting gives the class of its default, so that `config.method.queue_sise` is an error; assigning takes
any config of the group or the name of a choice. At run time, `settings.choice` checks them.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from eztorch_sce.augment.view import ViewConfig

if TYPE_CHECKING:
    from eztorch_sce.config.names import BackboneName, LossName, MethodName, OptimizerName, RunnerName, ViewsName
    from eztorch_sce.jobs.runners.base import RunnerConfig
    from eztorch_sce.jobs.runners.local import LocalConfig
    from eztorch_sce.losses.pairs import LossConfig
    from eztorch_sce.losses.sce import SCEConfig
    from eztorch_sce.methods.base import MethodConfig
    from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
    from eztorch_sce.models.backbones.base import BackboneConfig
    from eztorch_sce.optim.base import OptimizerConfig
    from eztorch_sce.optim.sgd import SGDConfig
    from eztorch_sce.settings import Choice

    BackboneChoice: TypeAlias = Choice[BackboneConfig | None, BackboneConfig | BackboneName | None]
    LossChoice: TypeAlias = Choice[SCEConfig, LossConfig | LossName | None]
    MethodChoice: TypeAlias = Choice[MomentumContrastConfig, MethodConfig | MethodName]
    OptimizerChoice: TypeAlias = Choice[OptimizerConfig | None, OptimizerConfig | OptimizerName | None]
    RunnerChoice: TypeAlias = Choice[LocalConfig, RunnerConfig | RunnerName]
    SGDChoice: TypeAlias = Choice[SGDConfig, OptimizerConfig | OptimizerName]
    ViewsChoice: TypeAlias = Choice[list[ViewConfig], list[ViewConfig] | ViewsName]
else:
    BackboneChoice = LossChoice = MethodChoice = OptimizerChoice = RunnerChoice = SGDChoice = Any
    ViewsChoice = list[ViewConfig]
