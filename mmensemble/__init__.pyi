"""The public names and the modules they come from: what type checkers read, and what `mmensemble` loads them by."""

from mmensemble.exceptions import ConfigurationError as ConfigurationError
from mmensemble.exceptions import DataError as DataError
from mmensemble.exceptions import DeviceError as DeviceError
from mmensemble.exceptions import ExportError as ExportError
from mmensemble.exceptions import MissingDependencyError as MissingDependencyError
from mmensemble.exceptions import MmensembleError as MmensembleError
from mmensemble.exceptions import ModelFileError as ModelFileError
from mmensemble.exceptions import ParityError as ParityError
from mmensemble.export import can_export as can_export
from mmensemble.export import export_onnx as export_onnx
from mmensemble.export import to_graph as to_graph
from mmensemble.fusion import EnsembleSelection as EnsembleSelection
from mmensemble.fusion import HardVoting as HardVoting
from mmensemble.fusion import LinearFusion as LinearFusion
from mmensemble.fusion import LogOpinionPool as LogOpinionPool
from mmensemble.fusion import ProductOfExperts as ProductOfExperts
from mmensemble.fusion import SoftVoting as SoftVoting
from mmensemble.fusion import Stacking as Stacking
from mmensemble.fusion import SuperLearner as SuperLearner
from mmensemble.inspection import expected_calibration_error as expected_calibration_error
from mmensemble.inspection import member_disagreement as member_disagreement
from mmensemble.inspection import missing_modality_curve as missing_modality_curve
from mmensemble.inspection import modality_importance as modality_importance
from mmensemble.inspection import modality_shapley as modality_shapley
from mmensemble.learning.columns import ColumnSelector as ColumnSelector
from mmensemble.learning.columns import on_column as on_column
from mmensemble.multimodal import InferredMembers as InferredMembers
from mmensemble.multimodal import MultimodalClassifier as MultimodalClassifier
from mmensemble.multimodal import MultimodalRegressor as MultimodalRegressor
from mmensemble.multimodal import infer_members as infer_members
from mmensemble.plotting import MemberDisagreementDisplay as MemberDisagreementDisplay
from mmensemble.plotting import MissingModalityDisplay as MissingModalityDisplay
from mmensemble.plotting import ModalityImportanceDisplay as ModalityImportanceDisplay
from mmensemble.plotting import ModalityShapleyDisplay as ModalityShapleyDisplay
from mmensemble.plotting import ReliabilityDisplay as ReliabilityDisplay
from mmensemble.plotting import TrainingCurveDisplay as TrainingCurveDisplay
from mmensemble.publishing import from_hub as from_hub
from mmensemble.publishing import push_to_hub as push_to_hub
from mmensemble.publishing import write_card as write_card
from mmensemble.scoring import BatchScorer as BatchScorer
from mmensemble.scoring import OnnxPredictor as OnnxPredictor
from mmensemble.scoring import generate_file as generate_file
from mmensemble.scoring import score_dataset as score_dataset
from mmensemble.scoring import score_file as score_file

__version__: str
