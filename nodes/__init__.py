"""The nodes, one file per step. Tables only."""

from .chat import WeGenChat
from .comfy_bridge import WeGenDecoderToModel, WeGenFeaturesToConditioning
from .compose import WeGenBboxCompose
from .decode import WeGenDecode
from .edit import WeGenEditInBox
from .encode import WeGenEncode
from .example import WeGenExamplePicture
from .feature_decode import WeGenDraw
from .features import WeGenFeatureArithmetic, WeGenLoadFeatures, WeGenMixFeatures, WeGenPreviewFeatures, WeGenSaveFeatures
from .keep import WeGenChangeMask, WeGenKeepOriginal, WeGenOriginalToLatent
from .load import WeGenLoadDecoder, WeGenLoadModel
from .panel import WeGenChatPanel
from .regional_attention import WeGenRegionalAttention, WeGenRegionalAttentionModel
from .second_look import WeGenSecondLook
from .subject import WeGenModelLora, WeGenTrainSubject
from .train import WeGenDecoderLora, WeGenTrainDecoder

NODE_CLASS_MAPPINGS: dict[str, type] = {
    "WeGenLoadModel": WeGenLoadModel,
    "WeGenLoadDecoder": WeGenLoadDecoder,
    "WeGenEncode": WeGenEncode,
    "WeGenChat": WeGenChat,
    "WeGenChatPanel": WeGenChatPanel,
    "WeGenDraw": WeGenDraw,
    "WeGenDecode": WeGenDecode,
    "WeGenBboxCompose": WeGenBboxCompose,
    "WeGenFeaturesToConditioning": WeGenFeaturesToConditioning,
    "WeGenDecoderToModel": WeGenDecoderToModel,
    "WeGenDecoderLora": WeGenDecoderLora,
    "WeGenTrainDecoder": WeGenTrainDecoder,
    "WeGenTrainSubject": WeGenTrainSubject,
    "WeGenModelLora": WeGenModelLora,
    "WeGenMixFeatures": WeGenMixFeatures,
    "WeGenFeatureArithmetic": WeGenFeatureArithmetic,
    "WeGenPreviewFeatures": WeGenPreviewFeatures,
    "WeGenSaveFeatures": WeGenSaveFeatures,
    "WeGenLoadFeatures": WeGenLoadFeatures,
    "WeGenExamplePicture": WeGenExamplePicture,
    "WeGenEditInBox": WeGenEditInBox,
    "WeGenChangeMask": WeGenChangeMask,
    "WeGenKeepOriginal": WeGenKeepOriginal,
    "WeGenOriginalToLatent": WeGenOriginalToLatent,
    "WeGenSecondLook": WeGenSecondLook,
    "WeGenRegionalAttention": WeGenRegionalAttention,
    "WeGenRegionalAttentionModel": WeGenRegionalAttentionModel,
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
    "WeGenFeaturesToConditioning": "Features to Conditioning",
    "WeGenDecoderToModel": "Decoder to MODEL + VAE",
    "WeGenDecoderLora": "Decoder LoRA",
    "WeGenTrainDecoder": "WeGen Train Decoder",
    "WeGenTrainSubject": "WeGen Train Subject",
    "WeGenModelLora": "WeGen Model LoRA",
    "WeGenMixFeatures": "Mix WeGen Features",
    "WeGenFeatureArithmetic": "WeGen Feature Arithmetic",
    "WeGenPreviewFeatures": "Preview WeGen Features",
    "WeGenSaveFeatures": "Save WeGen Features",
    "WeGenLoadFeatures": "Load WeGen Features",
    "WeGenExamplePicture": "WeGen Example Picture",
    "WeGenEditInBox": "Edit in Box",
    "WeGenChangeMask": "WeGen Change Mask",
    "WeGenKeepOriginal": "Keep Original Pixels",
    "WeGenOriginalToLatent": "Original to Latent",
    "WeGenSecondLook": "WeGen Second Look",
    "WeGenRegionalAttention": "WeGen Regional Attention",
    "WeGenRegionalAttentionModel": "WeGen Regional Attention (MODEL)",
}
