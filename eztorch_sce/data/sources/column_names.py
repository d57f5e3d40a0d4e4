"""Names that people give the columns of a list, compared without case, spaces and punctuation."""

import re


def plain_name(name: str) -> str:
    """Return a column name for comparison.

    >>> plain_name("Video_Path"), plain_name("video path"), plain_name("start (s)")
    ('videopath', 'videopath', 'starts')
    """
    return re.sub(r"[\W_]+", "", name).lower()


_PATHS = """
path paths file files filename filenames filepath filepaths fullpath relpath relativepath abspath absolutepath
video videos videopath videofile videofilename videofilepath videoname image images imagepath imagefile imagefilename
imagefilepath imagename img imgpath imgfile imgname clip clippath clipfile clipname mediapath mediafile
framedir framesdir framepath framespath framefolder framesfolder
"""
_WEAK_PATHS = """
id name videoid imageid imgid clipid fileid uid key dir directory folder media sample samplepath location source src
"""
_LABELS = """
label labels target targets class classes category categories classname classid classidx classindex classlabel
classnumber labelname labelid labelidx labelindex labeltext labelnumber categoryname categoryid categoryidx targetname
targetid action actionname actionlabel actionid activity wnid synset groundtruth gt
"""
_STARTS = """
start starts startsec startsecs startsecond startseconds starttime starttimes starttimesec starttimeseconds
starttimestamp timestart timestarts tstart begin begins beginsec beginseconds begintime timebegin tbegin segmentstart
segmentstarts clipstart clipstarts onset startinseconds from
"""
_ENDS = """
end ends endsec endsecs endsecond endseconds endtime endtimes endtimesec endtimeseconds endtimestamp timeend timeends
tend stop stops stopsec stopseconds stoptime timestop tstop segmentend segmentends clipend clipends endinseconds to
"""
_DURATIONS = "duration durations durationsec durationseconds length lengths len"
_SPLITS = "split splits subset set fold partition usage phase mode"

PATHS = frozenset(_PATHS.split())
"""Columns of paths."""

WEAK_PATHS = frozenset(_WEAK_PATHS.split())
"""Columns that are paths if there is no better one."""

LABELS = frozenset(_LABELS.split())
"""Columns of class numbers or class names."""

STARTS = frozenset(_STARTS.split())
"""Columns of the second at which the part of a video to use begins."""

ENDS = frozenset(_ENDS.split())
"""Columns of the second at which that part ends."""

DURATIONS = frozenset(_DURATIONS.split())
"""Columns of durations, of files or of parts of them."""

SPLITS = frozenset(_SPLITS.split())
"""Columns that say which split a file belongs to."""

# Marks of a part of a video that are not in seconds.
_OTHER_UNIT = re.compile(
    r"(time|t|frame)?(start|end|begin|stop|first|last)(time)?(frames?|framenumber|frameidx|frameindex|frameid|ms|msec|"
    r"millis|milliseconds|us|ns|index|idx)|frame(start|end|begin|stop)|offset"
)


def is_path(name: str) -> bool:
    """Return whether a column name is one of those of paths."""
    return plain_name(name) in PATHS | WEAK_PATHS


def is_known(name: str) -> bool:
    """Return whether a column name has a meaning."""
    return plain_name(name) in PATHS | WEAK_PATHS | LABELS | STARTS | ENDS


def is_other_unit(name: str) -> bool:
    """Return whether a column marks a part of a video, but not in seconds."""
    return _OTHER_UNIT.fullmatch(plain_name(name)) is not None
