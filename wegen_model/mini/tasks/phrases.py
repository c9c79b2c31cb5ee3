"""What people and the miniature say: the templates of its conversations.

{a} {b}: things ("cat"); {an_a} {an_b}: with article ("a cat"); {on}: colour ("blue"); {an_on}: "a blue". Lower-case and short:
every token costs training time.
"""

TEXT = (
    "{an_a} on {an_on} background",
    "draw {an_a} on {on}",
    "{a}, {on} background",
    "{an_a} on {on}",
    "a picture of {an_a} on {on}",
    "{on} background, {an_a}",
)
TEXT_PLAIN = ("{an_a}", "a picture of {an_a}", "just {an_a}")  # no colour: white
PAIR = (
    "{an_a} on the left and {an_b} on the right, {on} background",
    "{an_a} to the left of {an_b} on {on}",
    "{an_b} to the right of {an_a} on {on}",
    "{an_a} and {an_b} on {an_on} background",
    "{a} left, {b} right, {on} background",
)
PAIR_PLAIN = ("{an_a} and {an_b}", "{an_a} to the left of {an_b}")
BOX = (
    "{an_a} <bbox_1> on {an_on} background",
    "draw {an_a} at <bbox_1>, {on} background",
    "{a} <bbox_1>, {on}",
    "{on} background with {an_a} <bbox_1>",
)
BOX_PLAIN = ("{an_a} <bbox_1>", "draw {an_a} at <bbox_1>")
BOXES = (
    "{an_a} <bbox_1> and {an_b} <bbox_2> on {an_on} background",
    "draw {an_a} at <bbox_1> and {an_b} at <bbox_2>, {on} background",
    "{a} <bbox_1>, {b} <bbox_2>, {on}",
    "{on} background with {an_a} <bbox_1> and {an_b} <bbox_2>",
)
BOXES_PLAIN = ("{an_a} <bbox_1> and {an_b} <bbox_2>", "draw {an_a} at <bbox_1> and {an_b} at <bbox_2>")
REFERENCE = ("<image_1><bbox_1> on {an_on} background", "put <image_1> at <bbox_1>, {on} background", "<image_1><bbox_1>, {on}")
REFERENCE_PLAIN = ("<image_1><bbox_1>", "put <image_1> at <bbox_1>")
REFERENCES = (
    "<image_1><bbox_1> and <image_2><bbox_2> on {an_on} background",
    "put <image_1> at <bbox_1> and <image_2> at <bbox_2>, {on} background",
    "<image_1><bbox_1><image_2><bbox_2>, {on}",
)
REFERENCES_PLAIN = ("<image_1><bbox_1> and <image_2><bbox_2>",)
THREE = (
    "<image_1><bbox_1>, <image_2><bbox_2> and <image_3><bbox_3> on {an_on} background",
    "<image_1><bbox_1><image_2><bbox_2><image_3><bbox_3>, {on}",
)
THREE_PLAIN = ("<image_1><bbox_1>, <image_2><bbox_2> and <image_3><bbox_3>",)
SHOWN_AND_SAID = ("<image_1><bbox_1> and {an_b} <bbox_2> on {an_on} background",)  # one shown, one named
SIDES = ("<image_1> on the left and <image_2> on the right, {on} background",)  # no boxes: side by side
SUBJECT = ("<image_1> on {an_on} background", "<image_1> on {on}", "put <image_1> on {an_on} background")
NAME = ("<image_1> what is this?", "<image_1> what do you see?", "what is in <image_1>?")
CAPTION = ("<image_1> describe the picture", "<image_1> describe this", "describe <image_1>")
COLOUR = ("<image_1> what colour is the background?", "<image_1> which colour is behind it?", "what colour is the background of <image_1>?")
COUNT = ("<image_1> how many things?", "how many things are in <image_1>?")
WHERE_TOO = ("where is the {a}?", "and the {a}?", "find the {a}")
WHERE = ("<image_1> where is the {a}?", "where is the {a} in <image_1>?", "<image_1> find the {a}")
RECOLOUR = ("make the background {on}", "now on {on}", "change the background to {on}", "on {on} instead")
REPLACE = ("replace the {a} with {an_b}", "make it {an_b}", "swap the {a} for {an_b}", "{an_b} instead")
ADD_RIGHT = ("add {an_b} on the right", "put {an_b} to the right of the {a}", "{an_b} on the right too")
ADD_LEFT = ("add {an_b} on the left", "put {an_b} to the left of the {a}", "{an_b} on the left too")
REWRITE = ("{a}", "draw {an_a}", "{a} please", "i want {an_a}")  # none of them in TEXT_PLAIN
REWRITTEN = "{an_a} on {an_on} background"
# from one picture
BACKGROUND = ("<image_1> make the background {on}", "<image_1> change the background to {on}")
EXCHANGE = ("<image_1> replace the {a} with {an_b}", "<image_1> swap the {a} for {an_b}")
REMOVE = ("<image_1> remove the {a}", "<image_1> without the {a}")
MOVE = ("<image_1> move the {a} to <bbox_2>", "<image_1> the {a} at <bbox_2>")
PAINT = ("<image_1> paint the {a} {on}", "<image_1> make the {a} {on}")
ADD = ("<image_1> add {an_b} at <bbox_2>", "<image_1> with {an_b} <bbox_2>")
DEBLUR = ("<image_1> sharpen it", "<image_1> remove the blur")
DENOISE = ("<image_1> remove the noise", "<image_1> clean it")
FILL = ("<image_1> fill the holes", "<image_1> repair it")
COLOURISE = ("<image_1> give it colours, {on} background", "<image_1> colour it, {on} background")
ENLARGE = ("<image_1> more detail", "<image_1> enlarge it")
EDGES = (("<image_1> these edges: {an_a} on {on}",), ("<image_1> these edges: {an_a} and {an_b} on {on}",))
SILHOUETTE = (("<image_1> this shape: {an_a} on {on}",), ("<image_1> these shapes: {an_a} and {an_b} on {on}",))
RESTYLE = ("<image_1> in {style} style", "<image_1> make it {style}")
RESTYLE_ON = ("<image_1> in {style} style on {on}",)
