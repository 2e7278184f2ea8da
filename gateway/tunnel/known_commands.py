"""Every DevTools command that the policy knows, with its parameters, as Chromium's own `/json/protocol` lists them.

A domain stands at the margin, its commands two blanks in, each with its parameters; a line further in goes on with the
one before. A test compares this list with the browser's own, so that a new Chromium can't slip a command or a parameter
in: whoever adds one here has looked at what it can do, and has put it into `REFUSED` below or given it a check in
policy.py where it can do more than a lease may. All others pass.
"""

from __future__ import annotations

CHROMIUM = "156.0.8078.79"

_LISTED = """\
Accessibility
  disable
  enable
  getAXNodeAndAncestors nodeId backendNodeId objectId
  getChildAXNodes id frameId
  getFullAXTree depth frameId
  getPartialAXTree nodeId backendNodeId objectId fetchRelatives
  getRootAXNode frameId
  queryAXTree nodeId backendNodeId objectId accessibleName role
Ads
  getAdMetrics
  getAdScripts
Animation
  disable
  enable
  getCurrentTime id
  getPlaybackRate
  releaseAnimations animations
  resolveAnimation animationId
  seekAnimations animations currentTime currentTimes
  setPaused animations paused
  setPlaybackRate playbackRate
  setTiming animationId duration delay
Audits
  checkFormsIssues
  disable
  enable
  getEncodedResponse requestId encoding quality sizeOnly
Autofill
  disable
  enable
  setAddresses addresses
  trigger fieldId frameId card address
BackgroundService
  clearEvents service
  setRecording shouldRecord service
  startObserving service
  stopObserving service
BluetoothEmulation
  addCharacteristic serviceId characteristicUuid properties
  addDescriptor characteristicId descriptorUuid
  addService address serviceUuid
  disable
  enable state leSupported
  removeCharacteristic characteristicId
  removeDescriptor descriptorId
  removeService serviceId
  setSimulatedCentralState state
  simulateAdvertisement entry
  simulateCharacteristicOperationResponse characteristicId type code data
  simulateDescriptorOperationResponse descriptorId type code data
  simulateGATTDisconnection address
  simulateGATTOperationResponse address type code
  simulatePreconnectedPeripheral address name manufacturerData knownServiceUuids
Browser
  addMockCamera deviceId
  addPrivacySandboxEnrollmentOverride url
  cancelDownload guid browserContextId
  close
  crash
  crashGpuProcess
  executeBrowserCommand commandId
  getBrowserCommandLine
  getGlobalPrivacyControl
  getHistogram name delta
  getHistograms query delta
  getVersion
  getWindowBounds windowId
  getWindowForTarget targetId
  grantPermissions permissions origin browserContextId
  resetPermissions browserContextId
  setContentsSize windowId width height
  setDockTile badgeLabel image
  setDownloadBehavior behavior browserContextId downloadPath eventsEnabled
  setGlobalPrivacyControl gpc
  setPermission permission setting origin embeddedOrigin browserContextId
  setWindowBounds windowId bounds
CSS
  addRule styleSheetId ruleText location nodeForPropertySyntaxValidation
  collectClassNames styleSheetId
  createStyleSheet frameId force
  disable
  enable
  forcePseudoState nodeId forcedPseudoClasses
  forceStartingStyle nodeId forced
  getAnimatedStylesForNode nodeId
  getBackgroundColors nodeId
  getComputedStyleForNode nodeId
  getEnvironmentVariables
  getInlineStylesForNode nodeId
  getLayersForNode nodeId
  getLocationForSelector styleSheetId selectorText
  getLonghandProperties shorthandName value
  getMatchedStylesForNode nodeId
  getMediaQueries
  getPlatformFontsForNode nodeId
  getStyleSheetText styleSheetId
  resolveValues values nodeId propertyName pseudoType pseudoIdentifier
  setContainerQueryConditionText styleSheetId range text
  setContainerQueryText styleSheetId range text
  setEffectivePropertyValueForNode nodeId propertyName value
  setKeyframeKey styleSheetId range keyText
  setLocalFontsEnabled enabled
  setMediaText styleSheetId range text
  setNavigationText styleSheetId range text
  setPropertyRulePropertyName styleSheetId range propertyName
  setRuleSelector styleSheetId range selector
  setScopeText styleSheetId range text
  setStyleSheetText styleSheetId text
  setStyleTexts edits nodeForPropertySyntaxValidation
  setSupportsText styleSheetId range text
  startRuleUsageTracking
  stopRuleUsageTracking
  takeComputedStyleUpdates
  takeCoverageDelta
  trackComputedStyleUpdates propertiesToTrack
  trackComputedStyleUpdatesForNode nodeId
CacheStorage
  deleteCache cacheId
  deleteEntry cacheId request
  requestCacheNames securityOrigin storageKey storageBucket
  requestCachedResponse cacheId requestURL requestHeaders
  requestEntries cacheId skipCount pageSize pathFilter
Cast
  disable
  enable presentationUrl
  setSinkToUse sinkName
  startDesktopMirroring sinkName
  startTabMirroring sinkName
  stopCasting sinkName
Console
  clearMessages
  disable
  enable
CrashReportContext
  getEntries
DOM
  clearTextMarkers
  collectClassNamesFromSubtree nodeId
  copyTo nodeId targetNodeId insertBeforeNodeId
  describeNode nodeId backendNodeId objectId depth pierce
  disable
  discardSearchResults searchId
  enable includeWhitespace
  focus nodeId backendNodeId objectId
  forceShowInterest nodeId enable
  forceShowPopover nodeId enable invokerNodeId
  getAnchorElement nodeId anchorSpecifier
  getAttributes nodeId
  getBoxModel nodeId backendNodeId objectId
  getContainerForNode nodeId containerName physicalAxes logicalAxes queriesScrollState queriesAnchored
  getContentQuads nodeId backendNodeId objectId
  getDetachedDomNodes
  getDocument depth pierce
  getElementByRelation nodeId relation
  getFileInfo objectId
  getFlattenedDocument depth pierce
  getFrameOwner frameId
  getImplicitAnchorCandidates nodeId
  getNodeForLocation x y includeUserAgentShadowDOM ignorePointerEventsNone
  getNodeStackTraces nodeId
  getNodesForSubtreeByStyle nodeId computedStyles pierce
  getOuterHTML nodeId backendNodeId objectId includeShadowDOM
  getQueryingDescendantsForContainer nodeId
  getRelayoutBoundary nodeId
  getSearchResults searchId fromIndex toIndex
  getTopLayerElements
  hideHighlight
  highlightNode
  highlightRect
  markUndoableState
  moveTo nodeId targetNodeId insertBeforeNodeId
  performSearch query includeUserAgentShadowDOM
  pushNodeByPathToFrontend path
  pushNodesByBackendIdsToFrontend backendNodeIds
  querySelector nodeId selector
  querySelectorAll nodeId selector
  redo
  removeAttribute nodeId name
  removeNode nodeId
  requestChildNodes nodeId depth pierce
  requestNode objectId
  resolveNode nodeId backendNodeId objectGroup executionContextId
  scrollIntoViewIfNeeded nodeId backendNodeId objectId rect
  setAttributeValue nodeId name value
  setAttributesAsText nodeId text name
  setFileInputFiles files nodeId backendNodeId objectId
  setInspectedNode nodeId
  setNodeName nodeId name
  setNodeStackTracesEnabled enable
  setNodeValue nodeId value
  setOuterHTML nodeId outerHTML
  setTextMarker nodeId backendNodeId objectId type start end
  undo
DOMDebugger
  getEventListeners objectId depth pierce
  removeDOMBreakpoint nodeId type
  removeEventListenerBreakpoint eventName targetName
  removeInstrumentationBreakpoint eventName
  removeXHRBreakpoint url
  setBreakOnCSPViolation violationTypes
  setDOMBreakpoint nodeId type
  setEventListenerBreakpoint eventName targetName
  setInstrumentationBreakpoint eventName
  setXHRBreakpoint url
DOMSnapshot
  captureSnapshot computedStyles includePaintOrder includeDOMRects includeBlendedBackgroundColors
      includeTextColorOpacities
  disable
  enable
  getSnapshot computedStyleWhitelist includeEventListeners includePaintOrder includeUserAgentShadowTree
DOMStorage
  clear storageId
  disable
  enable
  getDOMStorageItems storageId
  removeDOMStorageItem storageId key
  setDOMStorageItem storageId key value
Debugger
  continueToLocation location targetCallFrames
  disable
  disassembleWasmModule scriptId
  enable maxScriptsCacheSize
  evaluateOnCallFrame callFrameId expression objectGroup includeCommandLineAPI silent returnByValue generatePreview
      throwOnSideEffect timeout scopeNumber
  getPossibleBreakpoints start end restrictToFunction
  getScriptSource scriptId
  getStackTrace stackTraceId
  getWasmBytecode scriptId
  nextWasmDisassemblyChunk streamId
  pause
  pauseOnAsyncCall parentStackTraceId
  removeBreakpoint breakpointId
  restartFrame callFrameId mode
  resume terminateOnResume
  searchInContent scriptId query caseSensitive isRegex
  setAsyncCallStackDepth maxDepth
  setBlackboxExecutionContexts uniqueIds
  setBlackboxPatterns patterns skipAnonymous
  setBlackboxedRanges scriptId positions
  setBreakpoint location condition
  setBreakpointByUrl lineNumber url urlRegex scriptHash columnNumber condition
  setBreakpointOnFunctionCall objectId condition
  setBreakpointsActive active
  setInstrumentationBreakpoint instrumentation
  setPauseOnExceptions state
  setReturnValue newValue
  setScriptSource scriptId scriptSource dryRun allowTopFrameEditing
  setSkipAllPauses skip
  setVariableValue scopeNumber variableName newValue callFrameId
  stepInto breakOnAsyncCall skipList
  stepOut
  stepOver skipList
DeviceAccess
  cancelPrompt id
  disable
  enable
  selectPrompt id deviceId
DeviceOrientation
  clearDeviceOrientationOverride
  setDeviceOrientationOverride alpha beta gamma
DigitalCredentials
  setVirtualWalletBehavior action protocol response frameId
Emulation
  addScreen left top width height workAreaInsets devicePixelRatio rotation colorDepth label isInternal
  canEmulate
  clearDeviceMetricsOverride
  clearDevicePostureOverride
  clearDisplayFeaturesOverride
  clearGeolocationOverride
  clearIdleOverride
  getOverriddenSensorInformation type
  getScreenInfos
  removeScreen screenId
  resetPageScaleFactor
  setAutoDarkModeOverride enabled
  setAutomationOverride enabled
  setCPUPerformanceOverride performanceTier
  setCPUThrottlingRate rate
  setDataSaverOverride dataSaverEnabled
  setDefaultBackgroundColorOverride color
  setDeviceMetricsOverride width height deviceScaleFactor mobile scale screenWidth screenHeight positionX positionY
      dontSetVisibleSize screenOrientation viewport displayFeature devicePosture scrollbarType
      screenOrientationLockEmulation viewportMeta textLayoutMode
  setDevicePostureOverride posture
  setDisabledImageTypes imageTypes
  setDisplayFeaturesOverride features
  setDocumentCookieDisabled disabled
  setEmitTouchEventsForMouse enabled configuration
  setEmulatedMedia media features
  setEmulatedOSTextScale scale
  setEmulatedVisionDeficiency type
  setFocusEmulationEnabled enabled
  setGeolocationOverride latitude longitude accuracy altitude altitudeAccuracy heading speed
  setHardwareConcurrencyOverride hardwareConcurrency
  setIdleOverride isUserActive isScreenUnlocked
  setLocaleOverride locale
  setNavigatorOverrides platform
  setPageScaleFactor pageScaleFactor
  setPressureSourceOverrideEnabled enabled source metadata
  setPressureStateOverride source state
  setPrimaryScreen screenId
  setSafeAreaInsetsOverride insets
  setScriptExecutionDisabled value
  setScrollbarsHidden hidden
  setSensorOverrideEnabled enabled type metadata
  setSensorOverrideReadings type reading
  setSmallViewportHeightDifferenceOverride difference
  setTimezoneOverride timezoneId
  setTouchEmulationEnabled enabled maxTouchPoints
  setUserAgentOverride userAgent acceptLanguage platform userAgentMetadata
  setVirtualKeyboardGeometryOverride keyboardRect
  setVirtualTimePolicy policy budget maxVirtualTimeTaskStarvationCount initialVirtualTime
  setVisibleSize width height
  updateScreen screenId left top width height workAreaInsets devicePixelRatio rotation colorDepth label isInternal
EventBreakpoints
  disable
  removeInstrumentationBreakpoint eventName
  setInstrumentationBreakpoint eventName
Extensions
  clearStorageItems id storageArea
  getExtensions
  getStorageItems id storageArea keys
  loadUnpacked path enableInIncognito
  removeStorageItems id storageArea keys
  setStorageItems id storageArea values
  triggerAction id targetId
  uninstall id
FedCm
  clickDialogButton dialogId dialogButton
  disable
  dismissDialog dialogId triggerCooldown
  enable disableRejectionDelay
  openUrl dialogId accountIndex accountUrlType
  resetCooldown
  selectAccount dialogId accountIndex
Fetch
  continueRequest requestId url method postData headers interceptResponse
  continueResponse requestId responseCode responsePhrase responseHeaders binaryResponseHeaders
  continueWithAuth requestId authChallengeResponse
  disable
  enable patterns handleAuthRequests
  failRequest requestId errorReason
  fulfillRequest requestId responseCode responseHeaders binaryResponseHeaders body responsePhrase
  getResponseBody requestId
  takeResponseBodyAsStream requestId
FileSystem
  getDirectory bucketFileSystemLocator
FindInPage
  findFirst query
  findNext
  findPrev
  stop
HeadlessExperimental
  beginFrame frameTimeTicks interval noDisplayUpdates screenshot
  disable
  enable
HeapProfiler
  addInspectedHeapObject heapObjectId
  collectGarbage
  disable
  enable
  getHeapObjectId objectId
  getObjectByHeapObjectId objectId objectGroup
  getSamplingProfile
  startSampling samplingInterval stackDepth includeObjectsCollectedByMajorGC includeObjectsCollectedByMinorGC
  startTrackingHeapObjects trackAllocations
  stopSampling
  stopTrackingHeapObjects reportProgress treatGlobalObjectsAsRoots captureNumericValue exposeInternals
  takeHeapSnapshot reportProgress treatGlobalObjectsAsRoots captureNumericValue exposeInternals
IO
  close handle
  read handle offset size
  resolveBlob objectId
IndexedDB
  clearObjectStore securityOrigin storageKey storageBucket databaseName objectStoreName
  deleteDatabase securityOrigin storageKey storageBucket databaseName
  deleteObjectStoreEntries securityOrigin storageKey storageBucket databaseName objectStoreName keyRange
  disable
  enable
  getMetadata securityOrigin storageKey storageBucket databaseName objectStoreName
  requestData securityOrigin storageKey storageBucket databaseName objectStoreName indexName skipCount pageSize
      keyRange
  requestDatabase securityOrigin storageKey storageBucket databaseName
  requestDatabaseNames securityOrigin storageKey storageBucket
Input
  cancelDragging
  dispatchDragEvent type x y data modifiers
  dispatchKeyEvent type modifiers timestamp text unmodifiedText keyIdentifier code key windowsVirtualKeyCode
      nativeVirtualKeyCode autoRepeat isKeypad isSystemKey location commands
  dispatchMouseEvent type x y modifiers timestamp button buttons clickCount force tangentialPressure tiltX tiltY twist
      deltaX deltaY pointerType
  dispatchTouchEvent type touchPoints modifiers timestamp
  emulateTouchFromMouseEvent type x y button timestamp deltaX deltaY modifiers clickCount
  imeSetComposition text selectionStart selectionEnd replacementStart replacementEnd
  insertText text
  setIgnoreInputEvents ignore
  setInterceptDrags enabled
  synthesizePinchGesture x y scaleFactor relativeSpeed gestureSourceType
  synthesizeScrollGesture x y xDistance yDistance xOverscroll yOverscroll preventFling speed gestureSourceType
      repeatCount repeatDelayMs interactionMarkerName
  synthesizeTapGesture x y duration tapCount gestureSourceType
Inspector
  disable
  enable
LayerTree
  compositingReasons layerId
  disable
  enable
  loadSnapshot tiles
  makeSnapshot layerId
  profileSnapshot snapshotId minRepeatCount minDuration clipRect
  releaseSnapshot snapshotId
  replaySnapshot snapshotId fromStep toStep scale
  snapshotCommandLog snapshotId
Log
  clear
  disable
  enable
  startViolationsReport config
  stopViolationsReport
Media
  disable
  enable
Memory
  forciblyPurgeJavaScriptMemory
  getAllTimeSamplingProfile
  getBrowserSamplingProfile
  getDOMCounters
  getDOMCountersForLeakDetection
  getSamplingProfile
  prepareForLeakDetection
  setPressureNotificationsSuppressed suppressed
  simulatePressureNotification level
  startSampling samplingInterval suppressRandomness
  stopSampling
Network
  canClearBrowserCache
  canClearBrowserCookies
  canEmulateNetworkConditions
  clearBrowserCache
  clearBrowserCookies
  configureDurableMessages maxTotalBufferSize maxResourceBufferSize
  deleteCookies name url domain path partitionKey
  deleteDeviceBoundSession key
  disable
  emulateNetworkConditions offline latency downloadThroughput uploadThroughput connectionType packetLoss
      packetQueueLength packetReordering
  emulateNetworkConditionsByRule offline emulateOfflineServiceWorker matchedNetworkConditions
  enable maxTotalBufferSize maxResourceBufferSize maxPostDataSize reportDirectSocketTraffic enableDurableMessages
  enableDeviceBoundSessions enable
  enableReportingApi enable
  fetchSchemefulSite origin
  getAllCookies
  getCertificate origin
  getCookies urls
  getRequestPostData requestId
  getResponseBody requestId
  getSecurityIsolationStatus frameId
  loadNetworkResource frameId url options
  overrideNetworkState offline latency downloadThroughput uploadThroughput connectionType
  replayXHR requestId
  searchInResponseBody requestId query caseSensitive isRegex
  setAttachDebugStack enabled
  setBlockedURLs urlPatterns urls
  setBypassServiceWorker bypass
  setCacheDisabled cacheDisabled
  setCookie name value url domain path secure httpOnly sameSite expires priority sourceScheme sourcePort partitionKey
  setCookieControls enableThirdPartyCookieRestriction
  setCookies cookies
  setExtraHTTPHeaders headers
  setUserAgentOverride userAgent acceptLanguage platform userAgentMetadata
  streamResourceContent requestId
Overlay
  disable
  enable
  getGridHighlightObjectsForTest nodeIds
  getHighlightObjectForTest nodeId includeDistance includeStyle colorFormat showAccessibilityInfo
  getSourceOrderHighlightObjectForTest nodeId
  hideHighlight
  highlightFrame frameId contentColor contentOutlineColor
  highlightNode highlightConfig nodeId backendNodeId objectId selector
  highlightQuad quad color outlineColor
  highlightRect x y width height color outlineColor
  highlightSourceOrder sourceOrderConfig nodeId backendNodeId objectId
  setInspectMode mode highlightConfig
  setPausedInDebuggerMessage message
  setShowAdHighlights show
  setShowContainerQueryOverlays containerQueryHighlightConfigs
  setShowDebugBorders show
  setShowDisplayCutout displayCutoutConfig
  setShowFPSCounter show
  setShowFlexOverlays flexNodeHighlightConfigs
  setShowGridOverlays gridNodeHighlightConfigs
  setShowHinge hingeConfig
  setShowHitTestBorders show
  setShowInspectedElementAnchor inspectedElementAnchorConfig
  setShowIsolatedElements isolatedElementHighlightConfigs
  setShowLayoutShiftRegions result
  setShowPaintRects result
  setShowScrollBottleneckRects show
  setShowScrollSnapOverlays scrollSnapHighlightConfigs
  setShowViewportSizeOnResize show
  setShowWebVitals show
  setShowWindowControlsOverlay windowControlsOverlayConfig
PWA
  changeAppUserSettings manifestId linkCapturing displayMode
  getOsAppState manifestId
  install manifestId installUrlOrBundleUrl
  launch manifestId url
  launchFilesInApp manifestId files
  openCurrentPageInApp manifestId
  uninstall manifestId
Page
  addCompilationCache url data
  addScriptToEvaluateOnLoad scriptSource
  addScriptToEvaluateOnNewDocument source worldName includeCommandLineAPI runImmediately
  bringToFront
  captureScreenshot format quality clip fromSurface captureBeyondViewport optimizeForSpeed
  captureSnapshot format
  clearCompilationCache
  clearDeviceMetricsOverride
  clearDeviceOrientationOverride
  clearGeolocationOverride
  close
  crash
  createIsolatedWorld frameId worldName grantUniveralAccess contentSecurityPolicy
  deleteCookie cookieName url
  disable
  enable enableFileChooserOpenedEvent
  generateTestReport message group
  getAdScriptAncestry frameId
  getAnnotatedPageContent includeActionableInformation
  getAppId
  getAppManifest manifestId
  getFrameTree
  getInstallabilityErrors
  getLayoutMetrics
  getManifestIcons
  getNavigationHistory
  getOriginTrials frameId
  getPermissionsPolicyState frameId
  getResourceContent frameId url
  getResourceTree
  getSiblingSubApps
  getSubApps
  handleJavaScriptDialog accept promptText
  navigate url referrer transitionType frameId referrerPolicy
  navigateToHistoryEntry entryId
  printToPDF landscape displayHeaderFooter printBackground scale paperWidth paperHeight marginTop marginBottom
      marginLeft marginRight pageRanges headerTemplate footerTemplate preferCSSPageSize transferMode generateTaggedPDF
      generateDocumentOutline
  produceCompilationCache scripts
  reload ignoreCache scriptToEvaluateOnLoad loaderId
  removeScriptToEvaluateOnLoad identifier
  removeScriptToEvaluateOnNewDocument identifier
  resetNavigationHistory
  screencastFrameAck sessionId
  searchInResource frameId url query caseSensitive isRegex
  setAdBlockingEnabled enabled
  setBypassCSP enabled
  setDeviceMetricsOverride width height deviceScaleFactor mobile scale screenWidth screenHeight positionX positionY
      dontSetVisibleSize screenOrientation viewport
  setDeviceOrientationOverride alpha beta gamma
  setDocumentContent frameId html
  setDownloadBehavior behavior downloadPath
  setFontFamilies fontFamilies forScripts
  setFontSizes fontSizes
  setGeolocationOverride latitude longitude accuracy
  setInterceptFileChooserDialog enabled cancel
  setLifecycleEventsEnabled enabled
  setPrerenderingAllowed isAllowed
  setRPHRegistrationMode mode
  setSPCTransactionMode mode
  setTouchEmulationEnabled enabled configuration
  setWebLifecycleState state
  startScreenRecording audio maxWidth maxHeight frameRate
  startScreencast format quality maxWidth maxHeight everyNthFrame maxFramesInFlight sendLastFrame
  stopLoading
  stopScreenRecording
  stopScreencast
  waitForDebugger
Performance
  disable
  enable timeDomain
  getMetrics
  setTimeDomain timeDomain
PerformanceTimeline
  enable eventTypes
Preload
  disable
  enable
Profiler
  disable
  enable
  getBestEffortCoverage
  setSamplingInterval interval
  start
  startPreciseCoverage callCount detailed allowTriggeredUpdates
  stop
  stopPreciseCoverage
  takePreciseCoverage
Runtime
  addBinding name executionContextId executionContextName
  awaitPromise promiseObjectId returnByValue generatePreview
  callFunctionOn functionDeclaration objectId arguments silent returnByValue generatePreview userGesture awaitPromise
      executionContextId objectGroup throwOnSideEffect uniqueContextId serializationOptions
  compileScript expression sourceURL persistScript executionContextId
  disable
  discardConsoleEntries
  enable
  evaluate expression objectGroup includeCommandLineAPI silent contextId returnByValue generatePreview userGesture
      awaitPromise throwOnSideEffect timeout disableBreaks replMode allowUnsafeEvalBlockedByCSP uniqueContextId
      serializationOptions
  getExceptionDetails errorObjectId
  getHeapUsage
  getIsolateId
  getProperties objectId ownProperties accessorPropertiesOnly generatePreview nonIndexedPropertiesOnly
  globalLexicalScopeNames executionContextId
  queryObjects prototypeObjectId objectGroup
  releaseObject objectId
  releaseObjectGroup objectGroup
  removeBinding name
  runIfWaitingForDebugger
  runScript scriptId executionContextId objectGroup silent includeCommandLineAPI returnByValue generatePreview
      awaitPromise
  setAsyncCallStackDepth maxDepth
  setCustomObjectFormatterEnabled enabled
  setMaxCallStackSizeToCapture size
  terminateExecution
Schema
  getDomains
Security
  disable
  enable
  handleCertificateError eventId action
  setIgnoreCertificateErrors ignore
  setOverrideCertificateErrors override
ServiceWorker
  deliverPushMessage origin registrationId data
  disable
  dispatchPeriodicSyncEvent origin registrationId tag
  dispatchSyncEvent origin registrationId tag lastChance
  enable
  setForceUpdateOnPageLoad forceUpdateOnPageLoad
  skipWaiting scopeURL
  startWorker scopeURL
  stopAllWorkers
  stopWorker versionId
  unregister scopeURL
  updateRegistration scopeURL
SmartCardEmulation
  disable
  enable
  reportBeginTransactionResult requestId handle
  reportConnectResult requestId handle activeProtocol
  reportDataResult requestId data
  reportError requestId resultCode
  reportEstablishContextResult requestId contextId
  reportGetStatusChangeResult requestId readerStates
  reportListReadersResult requestId readers
  reportPlainResult requestId
  reportReleaseContextResult requestId
  reportStatusResult requestId readerName state atr protocol
Storage
  clearCookies browserContextId
  clearDataForOrigin origin storageTypes
  clearDataForStorageKey storageKey storageTypes
  clearPrivateVerificationTokens issuerOrigin
  clearTrustTokens issuerOrigin
  deletePrivateVerificationToken tokenId
  deleteStorageBucket bucket
  getCookies browserContextId
  getPrivateVerificationTokens
  getPrivateVerificationTokensIssuerConfigs
  getStorageKey frameId
  getStorageKeyForFrame frameId
  getTrustTokens
  getUsageAndQuota origin
  overrideQuotaForOrigin origin quotaSize
  runBounceTrackingMitigations
  setCookies cookies browserContextId
  setPrivateVerificationTokensTracking enable
  setStorageBucketTracking storageKey enable
  trackCacheStorageForOrigin origin
  trackCacheStorageForStorageKey storageKey
  trackIndexedDBForOrigin origin
  trackIndexedDBForStorageKey storageKey
  untrackCacheStorageForOrigin origin
  untrackCacheStorageForStorageKey storageKey
  untrackIndexedDBForOrigin origin
  untrackIndexedDBForStorageKey storageKey
SystemInfo
  getFeatureState featureState
  getInfo
  getProcessInfo
Target
  activateTarget targetId
  attachToBrowserTarget
  attachToTarget targetId flatten
  autoAttachRelated targetId waitForDebuggerOnStart filter
  closeTarget targetId
  createBrowserContext disposeOnDetach proxyServer proxyBypassList originsWithUniversalNetworkAccess
  createTarget url left top width height windowState browserContextId enableBeginFrameControl newWindow background
      forTab hidden focus
  detachFromTarget sessionId targetId
  disposeBrowserContext browserContextId
  exposeDevToolsProtocol targetId bindingName inheritPermissions
  getBrowserContexts
  getDevToolsTarget targetId
  getTargetInfo targetId
  getTargets filter
  openDevTools targetId panelId
  sendMessageToTarget message sessionId targetId
  setAutoAttach autoAttach waitForDebuggerOnStart flatten filter
  setDiscoverTargets discover filter
  setRemoteLocations locations
Tethering
  bind port
  unbind port
Tracing
  end
  getCategories
  getTrackEventDescriptor
  recordClockSyncMarker syncId
  requestMemoryDump deterministic levelOfDetail
  start categories options bufferUsageReportingInterval transferMode streamFormat streamCompression traceConfig
      perfettoConfig tracingBackend screenshotMaxSize screenshotMaxCount
WebAudio
  disable
  enable
  getRealtimeData contextId
WebAuthn
  addCredential authenticatorId credential
  addVirtualAuthenticator options
  clearCredentials authenticatorId
  disable
  enable enableUI
  getCredential authenticatorId credentialId
  getCredentials authenticatorId
  removeCredential authenticatorId credentialId
  removeVirtualAuthenticator authenticatorId
  setAutomaticPresenceSimulation authenticatorId enabled
  setCredentialProperties authenticatorId credentialId backupEligibility backupState activeCmtgKeyIndex
      generateCmtgKeyOnNextOperation signCount
  setResponseOverrideBits authenticatorId isBogusSignature isBadUV isBadUP
  setUserVerified authenticatorId isUserVerified
WebMCP
  cancelInvocation invocationId
  disable
  enable
  invokeTool frameId toolName input
"""


def _known(listed: str) -> dict[str, tuple[str, ...]]:
    commands: dict[str, list[str]] = {}
    domain = method = ""
    for line in listed.splitlines():
        match len(line) - len(line.lstrip()):
            case 0:
                domain = line
            case 2:
                name, *parameters = line.split()
                method = f"{domain}.{name}"
                commands[method] = parameters
            case _:
                commands[method] += line.split()
    return {method: tuple(parameters) for method, parameters in commands.items()}


# Method -> names of its parameters.
KNOWN = _known(_LISTED)


def _whole(domain: str) -> tuple[str, ...]:
    return tuple(method for method in KNOWN if method.startswith(f"{domain}."))


# Rule -> why, and what to do instead; and the commands that are refused by it whatever their parameters.
_REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "command.wrapped": (
        "it carries commands that the gateway can't read. Attach with flatten: true and send them with a sessionId.",
        ("Target.exposeDevToolsProtocol", "Target.sendMessageToTarget"),
    ),
    "network.guard": (
        "it goes past the proxy that all of the browser's traffic takes. There is nothing to use instead.",
        ("Target.setRemoteLocations", *_whole("Cast"), *_whole("Tethering")),
    ),
    "browser.crash": (
        "it ends the whole browser. Stop the runtime through the API, or crash a page with Page.crash.",
        ("Browser.crash", "Browser.crashGpuProcess"),
    ),
    "browser.interface": (
        "it works the browser's own windows, which may do what a page may not. Use the commands of the page instead.",
        ("Browser.executeBrowserCommand", "Target.getDevToolsTarget", "Target.openDevTools"),
    ),
    "browser.extensions": (
        "extensions and installed apps are not a lease's to change or read. Use the page itself instead.",
        (*_whole("Extensions"), *_whole("PWA")),
    ),
    "host.details": (
        "it tells of the machine and of where the browser lies on it. Use Browser.getVersion instead.",
        ("Browser.getBrowserCommandLine", "Memory.getBrowserSamplingProfile", *_whole("SystemInfo")),
    ),
    "host.devices": (
        "it gives a page devices of the machine. Use BluetoothEmulation or SmartCardEmulation for simulated ones.",
        ("DeviceAccess.enable", "DeviceAccess.selectPrompt"),
    ),
    "page.code": (
        "the browser runs such a cache as it is, without a check. Use Page.addScriptToEvaluateOnNewDocument instead.",
        ("Page.addCompilationCache",),
    ),
}

# Method -> the rule that refuses it, and why.
REFUSED = {method: (rule, why) for rule, (why, methods) in _REFUSED.items() for method in methods}
