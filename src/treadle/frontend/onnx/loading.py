"""Read model files, and say what is wrong with those that cannot be read."""

from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from treadle.base.errors import ModelImportError
from treadle.frontend.onnx.compose import element_type

ModelSource = str | PathLike[str] | bytes | ModelProto


def load(model: ModelSource) -> tuple[ModelProto, Path | None]:
    """The model, and the folder that its external data are in.

    Raises:
        ModelImportError: E0611 when there is no such file, E0612 when it is not an ONNX model.
    """
    if isinstance(model, ModelProto):
        return _checked(model, "the model"), None
    if isinstance(model, bytes):
        return _parsed(model, "the bytes"), None
    path = Path(fspath(model))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelImportError(
            "E0611", f"cannot read the model '{path}': {error.strerror}", help="check the path"
        ) from error
    return _parsed(data, f"'{path}'"), path.parent


def _parsed(data: bytes, what: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise _corrupt(f"{what} cannot be decoded") from error
    return _checked(model, what)


def _checked(model: ModelProto, what: str) -> ModelProto:
    if not model.opset_import or not model.HasField("graph"):
        raise _corrupt(f"{what} has no graph or imports no opset")
    if not _is_text(model):
        raise _corrupt(f"{what} has names that are no text")
    return model


def _is_text(message: Message) -> bool:
    """Whether all strings of a message are: what is no UTF-8 arrives as bytes."""
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING):
            continue
        values: Iterable[object] = (value,) if isinstance(value, Message | str | bytes) else value
        for v in values:
            if not (_is_text(v) if isinstance(v, Message) else isinstance(v, str)):
                return False
    return True


def said_by_checker(model: ModelProto) -> str | None:
    """What ONNX's own checker says of a model that breaks its rules; ``None`` if it is content, or
    cannot tell because the model is too large for it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else "it is not valid"
    except (ValueError, EncodeError):
        return None
    return None


def _corrupt(message: str) -> ModelImportError:
    return ModelImportError(
        "E0612",
        f"this is not an ONNX model: {message}",
        help="export or download the file again; it may be truncated",
    )


_WIDER = {
    **dict.fromkeys(("INT2", "INT4"), np.int8),
    **dict.fromkeys(("UINT2", "UINT4"), np.uint8),
    **dict.fromkeys(("FLOAT4E2M1", "FLOAT8E4M3FN", "FLOAT8E5M2"), np.float32),
}


def is_narrow(tensor: TensorProto) -> bool:
    """Whether the elements are of a type that the house has not, and a wider one holds their
    values."""
    known = tensor.data_type in TensorProto.DataType.values()
    return known and TensorProto.DataType.Name(tensor.data_type) in _WIDER


def widened_array_of(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The values of a narrow tensor in the wider type.

    Raises:
        ModelImportError: what ``array_of`` raises.
    """
    return _array(tensor, folder).astype(_WIDER[TensorProto.DataType.Name(tensor.data_type)])


def array_of(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The array of an initializer or attribute.

    Raises:
        ModelImportError: E0604 for element types that the house has not, E0613 when external data
            are missing or short, E0612 when the data do not fit the shape.
    """
    element_type(tensor.data_type)
    return _array(tensor, folder)


def _array(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    if uses_external_data(tensor):
        return _external(tensor, folder)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise _corrupt(f"the data of the tensor '{tensor.name}' do not fit its shape") from error


def _external(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    if folder is None:
        raise ModelImportError(
            "E0613",
            f"the data of '{tensor.name}' are in another file, and the model's folder is not known",
            help="pass the path of the model instead of its contents",
        )
    try:
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        return numpy_helper.to_array(loaded)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelImportError(
            "E0613",
            f"cannot read the external data of '{tensor.name}': {error}",
            help="put the data file beside the model, as large as it was exported",
        ) from error
