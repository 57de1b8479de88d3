"""Mamba (state-space) models on volumes in 3D Slicer: segment, restore, classify. Not for clinical use.

The network runs in a process of its own, `napari-mamba run --events jsonl`; nothing of it is imported here. What the
module does is in MambaImagingLib, of which this file makes a module, a widget, a logic and a test.
"""

import os

import slicer
from MambaImagingLib.compute.remote import Consent
from MambaImagingLib.panel import application
from MambaImagingLib.scripting import Scripting
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

SAMPLES = "https://github.com/napari-mamba/SlicerMambaImaging/releases/download/sample-data/"


class MambaImaging(ScriptedLoadableModule):
    """The module, as the application lists it."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Mamba Imaging")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The napari-mamba developers"]
        parent.helpText = _(
            "Segment, restore and classify volumes with Mamba (state-space) models. Choose where it computes, a bundle "
            "and a volume, and press Run. Research software: not for clinical use. "
            '<a href="https://github.com/napari-mamba/SlicerMambaImaging">Documentation</a>.'
        )
        parent.acknowledgementText = _("Built on napari-mamba. Each bundle's card names its data, papers and licence.")
        if not slicer.app.commandOptions().noMainWindow:
            slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data():
    """Add the tutorial's volume to the module Sample Data."""
    import SampleData

    icons = os.path.join(os.path.dirname(__file__), "Resources", "Icons")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Mamba Imaging",
        sampleName="Hippocampus",
        thumbnailFileName=os.path.join(icons, "Hippocampus.png"),
        uris=SAMPLES + "hippocampus_left.nii.gz",
        fileNames="hippocampus_left.nii.gz",
        checksums="SHA256:c4b9fe8a7591525973b7798ca4b6358009714bedd208370e28ff45ac18b7dd8d",
        nodeNames="Hippocampus",
    )


class MambaImagingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel of the module."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None

    def setup(self):
        """Called when the module is opened the first time, and after a reload."""
        from MambaImagingLib.panel.widget import Panel

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MambaImaging.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = MambaImagingLogic()
        self.panel = Panel(self.ui, self.logic, slicer.mrmlScene, application.SlicerHost())
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.on_scene_closes)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.on_scene_ready)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.on_scene_ready)
        slicer.app.connect("aboutToQuit()", self.cleanup)

    def cleanup(self):
        """Called when the module is reloaded or the application quits: a run ends."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
            self.panel = None

    def enter(self):
        """Called each time the module is opened."""
        if self.panel is not None:
            if self.panel.parameters is None:
                self.panel.open_scene()
            self.panel.draw()

    def on_scene_closes(self, caller=None, event=None):
        """The scene is about to go."""
        if self.panel is not None:
            self.panel.close_scene()

    def on_scene_ready(self, caller=None, event=None):
        """The scene is empty, or another one was loaded."""
        if self.panel is not None:
            self.panel.open_scene()


class MambaImagingLogic(ScriptedLoadableModuleLogic, Scripting):
    """All that the module does, without its widget: see `MambaImagingLib.scripting.Scripting`."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        host = application.SlicerHost()
        Scripting.__init__(
            self,
            foreign=application.foreign_environment,
            temporary=application.temporary_folder,
            consent=Consent(host.confirm, application.Remembered(host)),
        )
        self.breathe = slicer.app.processEvents
        self._host, self._stop_timer, self._observer = host, None, None

    def start(self, *arguments, **choices):
        """Begin a run; the application's event loop carries it on, and a scene that closes ends it."""
        Scripting.start(self, *arguments, **choices)
        self._carry_on()

    def start_look(self, *arguments, **choices):
        """Begin a look inside; carried on as a run is."""
        Scripting.start_look(self, *arguments, **choices)
        self._carry_on()

    def _carry_on(self):
        self._end_watch()
        self._observer = slicer.mrmlScene.AddObserver(slicer.mrmlScene.StartCloseEvent, lambda *_: self.stop())
        self._stop_timer = self._host.start_timer(100, self._tick)

    def _tick(self):
        if not self.core.poll():
            self._end_watch()

    def stop(self):
        """End everything at once."""
        Scripting.stop(self)
        self._end_watch()

    def _end_watch(self):
        if self._stop_timer is not None:
            self._stop_timer()
            self._stop_timer = None
        if self._observer is not None:
            slicer.mrmlScene.RemoveObserver(self._observer)
            self._observer = None


class MambaImagingTest(ScriptedLoadableModuleTest):
    """The self-test: `Slicer --testing`, or Reload and Test in developer mode."""

    def setUp(self):
        """A scene with nothing in it."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Nodes to files and back, and, where napari-mamba can be found, a run."""
        from MambaImagingLib import self_test

        self.setUp()
        self.delayDisplay("Nodes to files and back")
        self_test.check_nodes()
        self.setUp()
        self.delayDisplay("A run, if napari-mamba is there")
        self.delayDisplay(self_test.check_run(MambaImagingLogic()))
