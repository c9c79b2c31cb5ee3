"""The nodes, one file per step. Tables only."""

from .chat import WeGenChat
from .compose import WeGenBboxCompose
from .decode import WeGenDecode
from .draw import WeGenDraw
from .encode import WeGenEncode
from .load import WeGenLoadDecoder, WeGenLoadModel
from .panel import WeGenChatPanel

NODE_CLASS_MAPPINGS = {
    "WeGenLoadModel": WeGenLoadModel,
    "WeGenLoadDecoder": WeGenLoadDecoder,
    "WeGenEncode": WeGenEncode,
    "WeGenChat": WeGenChat,
    "WeGenChatPanel": WeGenChatPanel,
    "WeGenDraw": WeGenDraw,
    "WeGenDecode": WeGenDecode,
    "WeGenBboxCompose": WeGenBboxCompose,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "WeGenLoadModel": "Load WeGen Model",
    "WeGenLoadDecoder": "Load WeGen Decoder",
    "WeGenEncode": "EVA-CLIP Encode",
    "WeGenChat": "WeGen Chat",
    "WeGenChatPanel": "WeGen Chat Panel",
    "WeGenDraw": "AR Feature Decode",
    "WeGenDecode": "SDXL Feature Decoder",
    "WeGenBboxCompose": "Bbox Compose",
}
